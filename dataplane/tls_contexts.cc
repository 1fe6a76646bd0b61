#include "dataplane/tls_contexts.h"

#include <algorithm>
#include <cstring>

#include "lib/tls/validation.h"

namespace millrace::dataplane {

using base::Error;
using base::Result;

namespace {

void append(std::string& key, std::string_view text) {
  key += std::to_string(text.size());
  key += ':';
  key += text;
}

void append(std::string& key, const std::vector<std::string>& list) {
  key += '|';
  for (const std::string& s : list) append(key, s);
}

void append(std::string& key, const tls::CertificatePem& pem) {
  append(key, pem.chain);
  append(key, pem.key);
  append(key, pem.ocsp_der);
}

template <class Config>
void append_common(std::string& key, const Config& c) {
  append(key, c.alpn);
  append(key, c.cipher_suites);
  append(key, c.curves);
  key += '|';
  key += static_cast<char>('0' + static_cast<int>(c.min_version));
  key += static_cast<char>('0' + static_cast<int>(c.max_version));
  tls::append_identity(c.validation, &key);
}

// Equal text, equal configuration.
std::string content_of(const tls::ServerConfig& c) {
  std::string key;
  for (const tls::CertificatePem& pem : c.certificates) append(key, pem);
  append_common(key, c);
  key += c.disable_tickets ? 'd' : 'e';
  key += c.prefer_client_ciphers ? 'p' : 'q';
  key += c.full_scan_on_sni_mismatch ? 'f' : 'g';
  key += c.require_client_certificate ? 'r' : 's';
  key += static_cast<char>('0' + static_cast<int>(c.ocsp_policy));
  append(key, std::to_string(c.session_timeout_s));
  for (const tls::TicketKey& k : c.ticket_keys) key.append(reinterpret_cast<const char*>(k.data()), k.size());
  return key;
}

std::string content_of(const tls::ClientConfig& c) {
  std::string key;
  append(key, c.certificate);
  append_common(key, c);
  key += c.tickets ? 't' : 'n';
  key += std::to_string(c.max_sessions);
  return key;
}

std::unique_ptr<tls::ServerContext> finished(std::unique_ptr<tls::ServerContext> context, const tls::ServerConfig& config,
                                             const tls::TicketKeys& keys) {
  if (!config.disable_tickets && config.ticket_keys.empty()) context->set_ticket_keys(keys);
  return context;
}
std::unique_ptr<tls::ClientContext> finished(std::unique_ptr<tls::ClientContext> context, const tls::ClientConfig&,
                                             const tls::TicketKeys&) {
  return context;
}

}  // namespace

TlsContextCache::TlsContextCache(std::vector<tls::LibraryContext*> libraries) : libraries_(std::move(libraries)) {
  if (enabled()) ticket_keys_ = tls::TicketKeys::random();
}

TlsContextCache::~TlsContextCache() { sweep(); }

template <class Context, class Config>
Result<std::shared_ptr<TlsContextSet<Context>>> TlsContextCache::get_in(Kind<Context>& kind, const Config& config,
                                                                        std::string_view besides) {
  std::string key = content_of(config);
  append(key, besides);
  if (const auto it = kind.by_content.find(key); it != kind.by_content.end()) {
    if (auto set = it->second.lock()) return set;
  }
  auto fresh = std::make_unique<TlsContextSet<Context>>();
  for (tls::LibraryContext* library : libraries_) {
    auto context = Context::create(*library, config);
    if (!context.ok()) return Error{context.error()};
    fresh->contexts.push_back(finished(std::move(*context), config, ticket_keys_));
    fresh->pointers.push_back(fresh->contexts.back().get());
  }
  alive_ += fresh->contexts.size();
  // Sessions outlive the tables that made them: contexts wait in `retired` until theirs are gone.
  std::shared_ptr<TlsContextSet<Context>> set(fresh.release(),
                                              [&kind](TlsContextSet<Context>* s) { kind.retired.emplace_back(s); });
  kind.by_content[std::move(key)] = set;
  return set;
}

Result<std::shared_ptr<TlsContextSet<tls::ServerContext>>> TlsContextCache::get(const tls::ServerConfig& config) {
  return get_in(servers_, config, {});
}
Result<std::shared_ptr<TlsContextSet<tls::ClientContext>>> TlsContextCache::get(const tls::ClientConfig& config,
                                                                                std::string_view besides) {
  return get_in(clients_, config, besides);
}

template <class Context>
void TlsContextCache::sweep_in(Kind<Context>& kind) {
  std::erase_if(kind.by_content, [](const auto& entry) { return entry.second.expired(); });
  for (auto& set : kind.retired) {
    for (auto& context : set->contexts) {
      if (context == nullptr || context->sessions() != 0) continue;
      context.reset();
      --alive_;
    }
  }
  std::erase_if(kind.retired, [](const auto& set) {
    return std::all_of(set->contexts.begin(), set->contexts.end(), [](const auto& c) { return c == nullptr; });
  });
}

size_t TlsContextCache::sweep() {
  sweep_in(servers_);
  sweep_in(clients_);
  return alive_;
}

void add_validation(const table::Secret& s, tls::ValidationConfig* out) {
  const auto replace = [&](const table::Blob& b, std::string* text) {
    if (b.count != 0) text->assign(reinterpret_cast<const char*>(b.begin(&s)), b.count);
  };
  replace(s.trusted_ca_pem, &out->trusted_ca_pem);
  replace(s.crl_pem, &out->crl_pem);
  for (uint32_t i = 0; i < s.sans.count; ++i) {
    const table::SanMatch& m = s.sans.at(&s, i);
    tls::SanMatcher san;
    switch (m.type) {
      case table::SanType::kDns:
        san.type = tls::SanMatcher::Type::kDns;
        break;
      case table::SanType::kUri:
        san.type = tls::SanMatcher::Type::kUri;
        break;
      case table::SanType::kIpAddress:
        san.type = tls::SanMatcher::Type::kIp;
        break;
      case table::SanType::kEmail:
        san.type = tls::SanMatcher::Type::kEmail;
        break;
    }
    san.kind = static_cast<tls::SanMatcher::Kind>(m.kind);
    static_assert(static_cast<int>(tls::SanMatcher::Kind::kContains) == static_cast<int>(table::StringMatchKind::kContains));
    san.value = table::view(&s, m.value);
    san.ignore_case = m.ignore_case != 0;
    out->sans.push_back(std::move(san));
  }
  const auto hashes = [&](const table::Blob& b, std::vector<tls::Sha256>* list) {
    for (uint32_t at = 0; at + sizeof(tls::Sha256) <= b.count; at += sizeof(tls::Sha256)) {
      tls::Sha256 one;
      std::memcpy(one.data(), b.begin(&s) + at, one.size());
      list->push_back(one);
    }
  };
  hashes(s.certificate_hashes, &out->certificate_hashes);
  hashes(s.spki_hashes, &out->spki_hashes);
  if (s.max_verify_depth != UINT32_MAX) out->max_verify_depth = s.max_verify_depth;
  out->only_leaf_crl |= s.only_leaf_crl != 0;
  out->allow_expired |= s.allow_expired != 0;
  out->accept_untrusted |= s.accept_untrusted != 0;
}

}  // namespace millrace::dataplane

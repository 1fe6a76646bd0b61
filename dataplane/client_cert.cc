#include "dataplane/client_cert.h"

namespace millrace::dataplane {

namespace {

constexpr std::string_view kName = "x-forwarded-client-cert";

// One element is put together in what is left of the scratch memory.
class Element {
 public:
  explicit Element(http::Scratch& scratch) : scratch_(scratch) {}
  void add(std::string_view text) {
    const std::string_view put = scratch_.copy(text);  // behind what is there: nothing else allocates meanwhile
    if (put.data() == nullptr) return;
    if (begin_ == nullptr) begin_ = put.data();
    size_ += put.size();
  }
  // "KEY=VALUE", joined by ';'.
  void pair(std::string_view key, std::string_view value) {
    if (size_ != 0) add(";");
    add(key);
    add(value);
  }
  void quoted(std::string_view key, std::string_view value) {
    pair(key, value);
    add("\"");
  }
  std::string_view view() const { return {begin_, size_}; }

 private:
  http::Scratch& scratch_;
  const char* begin_ = nullptr;
  size_t size_ = 0;
};

// One element of the list: what this connection's certificate says. Empty: no room, or no memory for it.
std::string_view describe(uint8_t details, tls::Session& tls, http::Scratch& scratch) {
  const tls::PeerCertificate* peer = tls.peer_certificate();
  if (peer == nullptr) return {};
  Element out(scratch);
  for (const std::string& uri : tls.local_uri_sans()) out.pair("By=", uri);
  out.pair("Hash=", peer->sha256);
  for (const bool chain : {false, true}) {
    if ((details & (chain ? table::kDetailChain : table::kDetailCert)) == 0) continue;
    const std::string_view pem = tls.peer_pem(chain);
    if (pem.empty()) return {};
    out.quoted(chain ? "Chain=\"" : "Cert=\"", pem);
  }
  if (details & table::kDetailSubject) out.quoted("Subject=\"", peer->subject);
  if (details & table::kDetailUri) {
    if (peer->uri_sans.empty()) out.pair("URI=", "");
    for (const std::string_view uri : peer->uri_sans) out.pair("URI=", uri);
  }
  if (details & table::kDetailDns)
    for (const std::string_view dns : peer->dns_sans) out.pair("DNS=", dns);
  return scratch.overflowed() ? std::string_view() : out.view();
}

// Several fields become one list, as in Envoy (RFC 9110 5.3). False: no room.
bool join(http::HeaderTable& headers, http::Scratch& scratch) {
  const char* begin = nullptr;
  size_t size = 0;
  uint32_t fields = 0;
  for (const http::Header& h : headers) {
    fields += h.id == http::HeaderId::kOther && h.name == kName;
  }
  if (fields <= 1) return true;
  for (const http::Header& h : headers) {
    if (h.id != http::HeaderId::kOther || h.name != kName) continue;
    const std::string_view put = scratch.concat({begin == nullptr ? "" : ",", h.value});  // each behind the other
    if (begin == nullptr) begin = put.data();
    size += put.size();
  }
  if (scratch.overflowed()) return false;
  return headers.set(kName, {begin, size});
}

}  // namespace

bool set_forwarded_client_cert(http::HeaderTable& headers, table::ForwardClientCert mode, uint8_t details, tls::Session* tls,
                               http::Scratch& scratch, std::span<char> work) {
  using Mode = table::ForwardClientCert;
  if (mode == Mode::kAlwaysForwardOnly) return join(headers, scratch);
  if (tls == nullptr || !tls->has_peer_certificate()) {  // not mutual TLS: whatever it says, nobody vouches for it
    headers.remove(kName);
    return true;
  }
  if (mode != Mode::kSanitizeSet && !join(headers, scratch)) return false;
  if (mode == Mode::kForwardOnly) return true;
  std::string_view mine = tls->kept_text(details);
  if (mine.empty()) {
    http::Scratch whole(work);
    mine = describe(details, *tls, whole);
    if (mine.empty()) return false;
    const std::string_view kept = tls->keep_text(details, mine);
    mine = !kept.empty() ? kept : scratch.copy(mine);  // another one is kept: the configuration has changed
  }
  if (mode == Mode::kAppendForward)
    if (const http::Header* h = headers.find(kName); h != nullptr && !h->value.empty())
      mine = scratch.concat({h->value, ",", mine});
  if (scratch.overflowed()) return false;
  return headers.set(kName, mine);  // where the first one stood, as in Envoy
}

}  // namespace millrace::dataplane

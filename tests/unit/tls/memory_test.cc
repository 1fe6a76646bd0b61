// OpenSSL's memory on a poll core: the arena by itself, and handshakes that run out of it at every possible place.
#include "lib/tls/memory.h"

#include <cstring>
#include <random>
#include <set>
#include <thread>
#include <vector>

#include <gtest/gtest.h>
#include <openssl/crypto.h>

#include "tests/support/seed.h"
#include "tests/unit/tls/pair.h"

namespace millrace::tls {
namespace {

using namespace testing;

constexpr size_t kMiB = 1024 * 1024;

// An arena for the calling thread, gone at the end of the scope.
struct ThreadArena {
  Arena* arena;
  explicit ThreadArena(size_t bytes) : arena(Arena::create(bytes)) { Arena::register_thread(arena); }
  ~ThreadArena() {
    Arena::register_thread(nullptr);
    Arena::destroy(arena);
  }
};

TEST(Arena, BlocksAreAlignedDistinctAndKeepTheirBytes) {
  Arena* a = Arena::create(16 * kMiB);
  ASSERT_NE(a, nullptr);
  const uint64_t seed = support::run_seed();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  struct Block {
    uint8_t* p;
    size_t n;
    uint8_t fill;
  };
  std::vector<Block> live;
  for (int i = 0; i < 50'000; ++i) {
    const bool grow = live.size() < 300 && random() % 2 == 0;
    if (grow) {
      const size_t n = random() % 100 == 0 ? 1 + random() % 200'000 : 1 + random() % (size_t{1} << (random() % 15));
      auto* p = static_cast<uint8_t*>(a->allocate(n));
      if (p == nullptr) continue;
      ASSERT_EQ(reinterpret_cast<uintptr_t>(p) % 16, 0u);
      ASSERT_TRUE(a->owns(p) && a->owns(p + n - 1));
      live.push_back({p, n, static_cast<uint8_t>(random())});
      std::memset(p, live.back().fill, n);
    } else if (!live.empty()) {
      const size_t k = random() % live.size();
      Block& b = live[k];
      for (size_t j = 0; j < b.n; ++j) ASSERT_EQ(b.p[j], b.fill);
      if (random() % 3 == 0) {
        const size_t n = 1 + random() % 40'000;
        auto* p = static_cast<uint8_t*>(a->reallocate(b.p, n));
        if (p == nullptr) continue;
        for (size_t j = 0; j < std::min(n, b.n); ++j) ASSERT_EQ(p[j], b.fill);
        b = {p, n, b.fill};
        std::memset(p, b.fill, n);
      } else {
        a->free_local(b.p);
        b = live.back();
        live.pop_back();
      }
    }
  }
  for (const Block& b : live) a->free_local(b.p);
  EXPECT_EQ(a->in_use(), 0u);
  EXPECT_EQ(a->counters().allocations, a->counters().frees);
  Arena::destroy(a);
}

TEST(Arena, EverySizeFitsItsClassExactly) {
  Arena* a = Arena::create(kArenaMinBytes);
  for (size_t n = 1; n <= 70'000; n += n < 20'000 ? 1 : 97) {
    void* p = a->allocate(n);
    ASSERT_NE(p, nullptr) << n;
    ASSERT_GE(a->counters().in_use, n);
    // Waste is bounded: a quarter of a doubling, the step to a third or a half of a span, a span.
    if (n <= 16384) {
      ASSERT_LE(a->counters().in_use, n + std::max<size_t>(16, n / 4)) << n;
    }
    std::memset(p, 0xab, n);
    a->free_local(p);
  }
  EXPECT_EQ(a->in_use(), 0u);
  Arena::destroy(a);
}

TEST(Arena, ExhaustionReturnsNullAndEverythingComesBack) {
  Arena* a = Arena::create(kArenaMinBytes);
  for (size_t n : {size_t{24}, size_t{500}, size_t{17'000}, size_t{100'000}}) {
    std::vector<void*> all;
    while (void* p = a->allocate(n)) all.push_back(p);
    EXPECT_GE(all.size() * n, kArenaMinBytes * 7 / 10) << n;  // most of it was usable
    const uint64_t refused = a->counters().exhausted;
    EXPECT_EQ(a->allocate(n), nullptr);
    EXPECT_EQ(a->counters().exhausted, refused + 1);
    for (void* p : all) a->free_local(p);
    EXPECT_EQ(a->in_use(), 0u);
  }
  EXPECT_EQ(a->allocate(0), nullptr);
  EXPECT_EQ(a->allocate(SIZE_MAX / 2), nullptr);
  Arena::destroy(a);
}

TEST(Arena, FreesByOtherThreadsComeHome) {
  Arena* a = Arena::create(16 * kMiB);
  constexpr int kThreads = 4, kBlocks = 20'000;
  std::array<std::vector<void*>, kThreads> blocks;
  for (int i = 0; i < kThreads * kBlocks; ++i) {
    void* p = a->allocate(16 + static_cast<size_t>(i) % 100);
    ASSERT_NE(p, nullptr);
    blocks[static_cast<size_t>(i % kThreads)].push_back(p);
  }
  std::vector<std::thread> threads;
  for (auto& mine : blocks)
    threads.emplace_back([&] {
      for (void* p : mine) a->free_remote(p);
    });
  // The owner goes on meanwhile.
  for (int i = 0; i < 10'000; ++i) a->free_local(a->allocate(64));
  for (auto& t : threads) t.join();
  EXPECT_EQ(a->in_use(), 0u);
  EXPECT_EQ(a->counters().remote_frees, uint64_t{kThreads} * kBlocks);
  Arena::destroy(a);
}

TEST(MemoryHooks, AreInstalledOnceAndForAll) {
  EXPECT_TRUE(memory_hooks_installed());
  EXPECT_TRUE(install_memory_hooks().ok());
}

TEST(MemoryHooks, ARegisteredThreadUsesItsArenaAndOthersTheHeap) {
  ThreadArena t(16 * kMiB);
  void* mine = OPENSSL_malloc(100);
  EXPECT_TRUE(t.arena->owns(mine));
  void* theirs = nullptr;
  std::thread([&] { theirs = OPENSSL_malloc(100); }).join();
  EXPECT_FALSE(t.arena->owns(theirs));
  // A block changes its home when the other side resizes it.
  std::memset(theirs, 7, 100);
  theirs = OPENSSL_realloc(theirs, 1000);
  EXPECT_TRUE(t.arena->owns(theirs));
  EXPECT_EQ(static_cast<uint8_t*>(theirs)[99], 7);
  EXPECT_EQ(t.arena->counters().foreign_frees, 1u);
  std::thread([&] {
    std::memset(mine, 9, 100);
    mine = OPENSSL_realloc(mine, 1000);
    EXPECT_FALSE(t.arena->owns(mine));
    EXPECT_EQ(static_cast<uint8_t*>(mine)[99], 9);
    OPENSSL_free(theirs);
  }).join();
  EXPECT_EQ(t.arena->in_use(), 0u);
  EXPECT_EQ(t.arena->counters().remote_frees, 2u);
  OPENSSL_free(mine);
}

// What a worker does: contexts are built by this (ordinary) thread, sessions live on a thread with an arena.
template <class F>
void on_worker(size_t arena_bytes, F&& body) {
  Arena* arena = Arena::create(arena_bytes);
  ASSERT_NE(arena, nullptr);
  std::thread([&] {
    Arena::register_thread(arena);
    body(*arena);
    Arena::register_thread(nullptr);
  }).join();
  // What OpenSSL cached for the thread and in the library context goes with those.
  EXPECT_LT(arena->in_use(), 2 * kMiB);
}

TEST(SessionMemory, SessionsLiveInTheArenaAndLeaveNothing) {
  for (Version v : {Version::kTls12, Version::kTls13}) {
    Pair p;
    p.configure(server_config(), client_config(v));
    on_worker(64 * kMiB, [&](Arena& arena) {
      p.library->warm_up_thread();
      uint64_t settled = 0;
      for (int i = 0; i < 50; ++i) {
        p.open("www.example.com");
        p.handshake();
        ASSERT_TRUE(p.established());
        p.client.queue(std::string(50'000, 'x'));
        p.transfer(p.client, p.server);
        p.close();
        if (i == 5) settled = arena.in_use();
      }
      EXPECT_EQ(arena.in_use(), settled);  // nothing grows
      EXPECT_EQ(arena.counters().exhausted, 0u);
      EXPECT_GT(arena.counters().allocations, 10'000u);
    });
  }
}

// The figure of README.md.
TEST(SessionMemory, IdleSessionIsSmall) {
  constexpr unsigned kSessions = 200;
  for (Version v : {Version::kTls12, Version::kTls13}) {
    Pair p;
    SessionPool clients(4), servers(kSessions);
    p.configure(server_config(), client_config(v));
    p.server_context->set_ticket_keys(TicketKeys::random());
    on_worker(64 * kMiB, [&](Arena& arena) {
      std::vector<Session*> open;
      uint64_t before = 0;
      for (unsigned i = 0; i < kSessions; ++i) {
        if (i == 10) before = arena.in_use();
        p.client.session = clients.open_client(*p.client_context, "www.example.com");
        p.server.session = servers.open_server(*p.server_context);
        p.handshake();
        ASSERT_TRUE(p.established());
        p.client.queue("GET / HTTP/1.1\r\nhost: www.example.com\r\n\r\n");
        p.transfer(p.client, p.server);
        p.server.queue(std::string(5000, 'x'));
        p.transfer(p.server, p.client);
        p.server.take();
        p.client.take();
        clients.close(std::exchange(p.client.session, nullptr));
        open.push_back(std::exchange(p.server.session, nullptr));
      }
      const uint64_t each = (arena.in_use() - before) / (kSessions - 10);
      std::printf("%s: %lu bytes of arena per idle server session\n", to_string(v), each);
      EXPECT_LT(each, 16'000u);
      for (Session* s : open) servers.close(s);
    });
  }
}

// The headroom rule says so before OpenSSL sees a null pointer.
TEST(SessionMemory, NoHeadroomMeansNoNewSessionAndNoCrash) {
  Pair p;
  p.configure(server_config(), client_config());
  on_worker(kArenaMinBytes, [&](Arena& arena) {
    std::vector<void*> hog;
    p.open();
    p.client.receive();
    p.deliver(p.client, p.server);
    while (arena.available() >= kHandshakeHeadroomBytes) hog.push_back(arena.allocate(60'000));
    EXPECT_EQ(p.server.receive().error, TlsError::kNoMemory);
    EXPECT_EQ(p.sessions.open_server(*p.server_context), nullptr);
    EXPECT_EQ(p.sessions.last_error(), TlsError::kNoMemory);
    EXPECT_EQ(p.sessions.counters().no_memory, 2u);
    EXPECT_EQ(arena.counters().exhausted, 0u);
    for (void* h : hog) arena.free_local(h);
    p.close();
    p.open();
    p.handshake();
    EXPECT_TRUE(p.established());  // and it works again
    // An established session waits rather than fails when there is no room for a record.
    p.client.queue("wait for it");
    p.client.send();
    p.deliver(p.client, p.server);
    hog.clear();
    while (arena.has_room(17 * 1024)) hog.push_back(arena.allocate(17 * 1024));
    Progress r = p.server.receive();
    EXPECT_EQ(r.error, TlsError::kNone);
    EXPECT_TRUE(r.pool_empty);
    for (void* h : hog) arena.free_local(h);
    EXPECT_EQ(p.server.receive().plain_bytes, 11u);
    p.close();
  });
}

// Behind that rule: OpenSSL gets null at the n-th allocation of a whole connection, for every n. It may fail; it may not crash or
// leak.
TEST(SessionMemory, NullAtEveryAllocation) {
  for (Version v : {Version::kTls12, Version::kTls13}) {
    Pair p;
    p.configure(server_config(), client_config(v));
    p.server_context->set_ticket_keys(TicketKeys::random());
    on_worker(64 * kMiB, [&](Arena& arena) {
      p.library->warm_up_thread();
      const auto connection = [&] {
        p.client.session = p.sessions.open_client(*p.client_context, "www.example.com");
        p.server.session = p.client.session != nullptr ? p.sessions.open_server(*p.server_context) : nullptr;
        bool whole = false;
        if (p.server.session != nullptr) {
          p.handshake();
          if (p.established()) {
            p.client.queue("hello");
            p.transfer(p.client, p.server);
            p.client.session->close_notify(p.client.wire());
            whole = p.server.take() == "hello";
          }
        }
        p.close();
        return whole;
      };
      ASSERT_TRUE(connection());  // caches are filled
      const uint64_t before = arena.counters().allocations;
      ASSERT_TRUE(connection());
      const uint64_t allocations = arena.counters().allocations - before;
      ASSERT_GT(allocations, 300u);
      const uint64_t settled = arena.in_use();
      unsigned failed = 0;
      for (uint64_t n = 0; n < allocations; ++n) {
        arena.fail_after(n);
        failed += !connection();
        arena.fail_after(UINT64_MAX);
      }
      EXPECT_GT(failed, allocations / 2);
      EXPECT_TRUE(connection());
      EXPECT_LE(arena.in_use(), settled + 64 * 1024);
    });
  }
}

}  // namespace
}  // namespace millrace::tls

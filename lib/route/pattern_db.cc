#include "lib/route/pattern_db.h"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <hs/hs.h>

#include "lib/base/assert.h"
#include "lib/base/hash.h"
#include "lib/route/utf8.h"

namespace millrace::route {

std::string platform() {
  hs_platform_info_t info;
  std::string text = std::string("hyperscan ") + hs_version();
  if (hs_populate_platform(&info) == HS_SUCCESS) {
    if (info.cpu_features & HS_CPU_FEATURES_AVX2) text += " avx2";
    if (info.cpu_features & HS_CPU_FEATURES_AVX512) text += " avx512";
    if (info.cpu_features & HS_CPU_FEATURES_AVX512VBMI) text += " avx512vbmi";
  }
  return text;
}

// ---- compile ----------------------------------------------------------------------------------------------------------

namespace {

// UTF8: RE2 matches characters, not bytes, and so do these; scan() keeps ill-formed subjects away, as the flag demands. It costs
// nothing on ASCII (measured: README). SINGLEMATCH: one report per pattern. DOTALL: subjects hold no line feed, and "." then has
// the simplest automaton.
constexpr unsigned kFlags = HS_FLAG_DOTALL | HS_FLAG_SINGLEMATCH | HS_FLAG_UTF8;

}  // namespace

uint64_t hash_of(const PatternSet& set) {
  uint64_t h = base::hash64(std::string_view(hs_version()), kFlags);
  for (const Pattern& p : set.patterns) h = base::hash64(p.expression, h + (p.matches_empty ? 1 : 2));
  return h;
}

CompiledSet compile_set(const PatternSet& set) {
  CompiledSet out;
  const size_t n = set.patterns.size();
  MILLRACE_ASSERT(n > 0 && n <= kMaxPatternsPerDb, "a pattern set has 1..kMaxPatternsPerDb patterns");
  std::vector<std::string> anchored(n);
  std::vector<const char*> expressions(n);
  std::vector<unsigned> flags(n), ids(n);
  for (size_t i = 0; i < n; ++i) {
    anchored[i] = "\\A(?:" + set.patterns[i].expression + ")\\z";
    expressions[i] = anchored[i].c_str();
    flags[i] = kFlags | (set.patterns[i].matches_empty ? HS_FLAG_ALLOWEMPTY : 0u);
    ids[i] = static_cast<unsigned>(i);
  }
  hs_database_t* db = nullptr;
  hs_compile_error_t* error = nullptr;
  if (hs_compile_multi(expressions.data(), flags.data(), ids.data(), static_cast<unsigned>(n), HS_MODE_BLOCK, nullptr, &db,
                       &error) != HS_SUCCESS) {
    out.failure.message = error != nullptr && error->message != nullptr ? error->message : "unknown error";
    out.failure.pattern = error != nullptr ? error->expression : -1;
    hs_free_compile_error(error);
    return out;
  }
  char* bytes = nullptr;
  size_t size = 0;
  const hs_error_t status = hs_serialize_database(db, &bytes, &size);
  hs_free_database(db);
  if (status != HS_SUCCESS) {
    out.failure.message = "the database could not be serialized";
    return out;
  }
  out.serialized.assign(bytes, bytes + size);
  std::free(bytes);  // from Hyperscan's misc allocator, which is malloc
  return out;
}

namespace {

// What a child writes for each set: kBegin when it starts (so that the parent knows whom to blame), kDone with the result.
enum class Note : uint32_t { kBegin = 1, kDone = 2 };
struct NoteHeader {
  Note note;
  uint32_t set;     // index into the caller's sets
  int32_t pattern;  // CompileFailure::pattern
  uint32_t failed;  // 1: the payload is a message, not a database
  uint64_t payload_bytes;
};

bool write_all(int fd, const void* data, size_t n) {
  const char* p = static_cast<const char*>(data);
  while (n > 0) {
    const ssize_t k = ::write(fd, p, n);
    if (k < 0 && errno == EINTR) continue;
    if (k <= 0) return false;
    p += k;
    n -= static_cast<size_t>(k);
  }
  return true;
}

uint64_t address_space_bytes() {
  uint64_t pages = 0;
  if (FILE* f = std::fopen("/proc/self/statm", "r")) {
    unsigned long long v = 0;
    if (std::fscanf(f, "%llu", &v) == 1) pages = v;
    std::fclose(f);
  }
  return pages * static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
}

[[noreturn]] void child_main(int fd, std::span<const PatternSet> sets, const std::vector<uint32_t>& work, uint64_t address_limit,
                             uint32_t seconds) {
  const rlimit memory{address_limit, address_limit};
  ::setrlimit(RLIMIT_AS, &memory);
  const rlim_t cpu = static_cast<rlim_t>(seconds) * std::max<size_t>(work.size(), 1) + 1;
  const rlimit time{cpu, cpu};
  ::setrlimit(RLIMIT_CPU, &time);
  const rlimit core{0, 0};
  ::setrlimit(RLIMIT_CORE, &core);
  for (const int sig : {SIGINT, SIGTERM, SIGHUP, SIGPIPE, SIGABRT, SIGSEGV, SIGXCPU, SIGCHLD}) ::signal(sig, SIG_DFL);
  for (const uint32_t i : work) {
    NoteHeader note{Note::kBegin, i, -1, 0, 0};
    if (!write_all(fd, &note, sizeof note)) ::_exit(1);
    const CompiledSet result = compile_set(sets[i]);
    note.note = Note::kDone;
    note.pattern = result.failure.pattern;
    note.failed = result.ok() ? 0 : 1;
    note.payload_bytes = result.ok() ? result.serialized.size() : result.failure.message.size();
    const void* payload = result.ok() ? static_cast<const void*>(result.serialized.data()) : result.failure.message.data();
    if (!write_all(fd, &note, sizeof note) || !write_all(fd, payload, note.payload_bytes)) ::_exit(1);
  }
  ::_exit(0);  // no destructors, no atexit: they belong to the parent
}

// One child and what it has told us so far.
class Child {
 public:
  using Clock = std::chrono::steady_clock;

  Child(std::span<const PatternSet> sets, std::vector<uint32_t> work, const CompileLimits& limits,
        std::vector<CompiledSet>& results)
      : sets_(sets), work_(std::move(work)), limits_(limits), results_(results) {}
  ~Child() { stop(); }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  bool start() {
    int fds[2];
    if (::pipe2(fds, O_CLOEXEC) != 0) return fail_all("no pipe for the compiler process");
    const uint64_t address_limit = address_space_bytes() + limits_.memory_bytes;
    pid_ = ::fork();
    if (pid_ < 0) {
      ::close(fds[0]);
      ::close(fds[1]);
      return fail_all("the compiler process could not be started");
    }
    if (pid_ == 0) {
      ::close(fds[0]);
      child_main(fds[1], sets_, work_, address_limit, limits_.seconds);
    }
    ::close(fds[1]);
    fd_ = fds[0];
    since_ = Clock::now();
    return true;
  }

  int fd() const { return fd_; }
  bool running() const { return fd_ >= 0; }
  // Milliseconds until the set at work has used up its time.
  int ms_left() const {
    const auto used = std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - since_).count();
    const int64_t left = static_cast<int64_t>(limits_.seconds) * 1000 - used;
    return static_cast<int>(std::clamp<int64_t>(left, 0, 1'000'000));
  }

  void on_readable() {
    char buffer[64 * 1024];
    const ssize_t k = ::read(fd_, buffer, sizeof buffer);
    if (k < 0 && (errno == EINTR || errno == EAGAIN)) return;
    if (k <= 0) return on_end(false);
    input_.insert(input_.end(), buffer, buffer + k);
    parse();
  }
  void on_timeout() { on_end(true); }

  // Sets that were not reached, for another child.
  std::vector<uint32_t> left_over() const {
    return std::vector<uint32_t>(work_.begin() + static_cast<ptrdiff_t>(std::min(done_, work_.size())), work_.end());
  }

 private:
  bool fail_all(const char* why) {
    for (const uint32_t i : work_) results_[i].failure.message = why;
    done_ = work_.size();
    return false;
  }

  void parse() {
    size_t at = 0;
    while (input_.size() - at >= sizeof(NoteHeader)) {
      NoteHeader note;
      std::memcpy(&note, input_.data() + at, sizeof note);
      if (note.note == Note::kBegin) {
        at += sizeof note;
        since_ = Clock::now();
        continue;
      }
      if (input_.size() - at - sizeof note < note.payload_bytes) break;
      const char* payload = input_.data() + at + sizeof note;
      CompiledSet& r = results_[work_[done_]];
      if (note.failed != 0) {
        r.failure.message.assign(payload, note.payload_bytes);
        r.failure.pattern = note.pattern;
      } else {
        r.serialized.assign(payload, payload + note.payload_bytes);
      }
      ++done_;
      since_ = Clock::now();
      at += sizeof note + note.payload_bytes;
    }
    input_.erase(input_.begin(), input_.begin() + static_cast<ptrdiff_t>(at));
  }

  // The child closed its pipe: done, or dead. The set it was at is to blame.
  void on_end(bool timed_out) {
    const int status = stop();
    if (done_ >= work_.size()) return;
    std::string& message = results_[work_[done_]].failure.message;
    if (timed_out || (WIFSIGNALED(status) && WTERMSIG(status) == SIGXCPU)) {
      message = "compiling took longer than " + std::to_string(limits_.seconds) + " s";
    } else {
      message = "compiling needed more than " + std::to_string(limits_.memory_bytes >> 20) + " MiB of memory";
    }
    ++done_;
  }

  int stop() {
    int status = 0;
    if (fd_ >= 0) {
      ::close(fd_);
      fd_ = -1;
    }
    if (pid_ > 0) {
      // Where it ended by itself the signal finds a zombie and changes nothing of its status.
      if (done_ < work_.size()) ::kill(pid_, SIGKILL);
      while (::waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
      }
      pid_ = -1;
    }
    return status;
  }

  std::span<const PatternSet> sets_;
  std::vector<uint32_t> work_;
  CompileLimits limits_;
  std::vector<CompiledSet>& results_;
  std::vector<char> input_;
  size_t done_ = 0;
  pid_t pid_ = -1;
  int fd_ = -1;
  Clock::time_point since_;
};

}  // namespace

std::vector<CompiledSet> compile_sets_in_child(std::span<const PatternSet> sets, const CompileLimits& limits) {
  std::vector<CompiledSet> results(sets.size());
  const size_t children = std::max<size_t>(1, std::min<size_t>(limits.children, sets.size()));
  std::vector<std::vector<uint32_t>> shares(children);
  std::vector<size_t> load(children, 0);
  for (uint32_t i = 0; i < sets.size(); ++i) {  // each set to whoever has least to do
    const size_t c = static_cast<size_t>(std::min_element(load.begin(), load.end()) - load.begin());
    shares[c].push_back(i);
    load[c] += sets[i].patterns.size();
  }
  std::vector<std::unique_ptr<Child>> running;
  const auto launch = [&](std::vector<uint32_t> work) {
    if (work.empty()) return;
    auto child = std::make_unique<Child>(sets, std::move(work), limits, results);
    if (child->start()) running.push_back(std::move(child));
  };
  for (auto& share : shares) launch(std::move(share));
  while (!running.empty()) {
    std::vector<pollfd> polls;
    int wait_ms = 1'000'000;
    for (const auto& c : running) {
      polls.push_back({c->fd(), POLLIN, 0});
      wait_ms = std::min(wait_ms, c->ms_left());
    }
    ::poll(polls.data(), polls.size(), wait_ms + 1);
    for (size_t i = 0; i < running.size(); ++i) {
      if (polls[i].revents != 0) {
        running[i]->on_readable();
      } else if (running[i]->ms_left() == 0) {
        running[i]->on_timeout();
      }
    }
    std::vector<std::vector<uint32_t>> again;
    std::erase_if(running, [&](const std::unique_ptr<Child>& c) {
      if (c->running()) return false;
      again.push_back(c->left_over());
      return true;
    });
    for (auto& work : again) launch(std::move(work));
  }
  return results;
}

// ---- load -------------------------------------------------------------------------------------------------------------

base::Result<std::shared_ptr<const PatternDb>> PatternDb::load(std::span<const uint8_t> serialized) {
  const char* bytes = reinterpret_cast<const char*>(serialized.data());
  size_t size = 0;
  if (hs_serialized_database_size(bytes, serialized.size(), &size) != HS_SUCCESS)
    return base::Error{"the regex database is damaged or of another Hyperscan version (here: " + platform() + ")"};
  std::shared_ptr<PatternDb> db(new PatternDb);
  const size_t rounded = (size + kDbAlignment - 1) / kDbAlignment * kDbAlignment;
  db->memory_ = std::aligned_alloc(kDbAlignment, rounded);
  if (db->memory_ == nullptr) return base::Error{"no memory for a regex database of " + std::to_string(size) + " bytes"};
  db->size_bytes_ = size;
  const hs_error_t status = hs_deserialize_database_at(bytes, serialized.size(), static_cast<hs_database_t*>(db->memory_));
  if (status != HS_SUCCESS) {
    return base::Error{status == HS_DB_PLATFORM_ERROR
                           ? "the regex database is for another processor (here: " + platform() + ")"
                           : "the regex database is damaged (Hyperscan error " + std::to_string(status) + ")"};
  }
  hs_scratch_t* scratch = nullptr;
  if (hs_alloc_scratch(static_cast<const hs_database_t*>(db->memory_), &scratch) == HS_SUCCESS) {
    hs_scratch_size(scratch, &db->scratch_bytes_);
    hs_free_scratch(scratch);
  }
  return std::shared_ptr<const PatternDb>(std::move(db));
}

PatternDb::~PatternDb() { std::free(memory_); }

PatternScratch::~PatternScratch() { hs_free_scratch(static_cast<hs_scratch_t*>(raw_)); }

base::Status PatternScratch::fit(const PatternDb& db, bool* grew) {
  const size_t before = size_bytes();
  hs_scratch_t* scratch = static_cast<hs_scratch_t*>(raw_);
  const hs_error_t status = hs_alloc_scratch(static_cast<const hs_database_t*>(db.memory_), &scratch);
  if (status != HS_SUCCESS) {
    return base::Error{"no scratch memory for a regex database (Hyperscan error " + std::to_string(status) + ")"};
  }
  raw_ = scratch;
  if (grew != nullptr && size_bytes() != before) *grew = true;
  return {};
}

base::Result<PatternScratch> PatternScratch::clone() const {
  PatternScratch copy;
  if (raw_ == nullptr) return copy;
  hs_scratch_t* scratch = nullptr;
  if (hs_clone_scratch(static_cast<const hs_scratch_t*>(raw_), &scratch) != HS_SUCCESS)
    return base::Error{"no memory to clone regex scratch"};
  copy.raw_ = scratch;
  return copy;
}

size_t PatternScratch::size_bytes() const {
  size_t size = 0;
  if (raw_ != nullptr) hs_scratch_size(static_cast<const hs_scratch_t*>(raw_), &size);
  return size;
}

// ---- scan -------------------------------------------------------------------------------------------------------------

struct Scanner {
  OnMatch on_match;
  void* context;

  static int on_report(unsigned id, unsigned long long, unsigned long long, unsigned, void* self) {
    Scanner* s = static_cast<Scanner*>(self);
    return s->on_match(s->context, id) ? 1 : 0;
  }
  ScanStatus run(const PatternDb& db, const PatternScratch& scratch, std::string_view subject) {
    if (scratch.raw_ == nullptr) return ScanStatus::kFailed;
    const char* data = subject.data() != nullptr ? subject.data() : "";
    const hs_error_t status = hs_scan(static_cast<const hs_database_t*>(db.memory_), data, static_cast<unsigned>(subject.size()),
                                      0, static_cast<hs_scratch_t*>(scratch.raw_), &Scanner::on_report, this);
    return status == HS_SUCCESS || status == HS_SCAN_TERMINATED ? ScanStatus::kDone : ScanStatus::kFailed;
  }
};

ScanStatus scan(const PatternDb& db, const PatternScratch& scratch, std::string_view subject, OnMatch on_match, void* context) {
  if (!is_utf8(subject)) return ScanStatus::kDone;  // RE2 works on characters: ill-formed text matches nothing
  Scanner scanner{on_match, context};
  return scanner.run(db, scratch, subject);
}

}  // namespace millrace::route

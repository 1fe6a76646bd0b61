// Regular expressions by Hyperscan: compile (control), load (the data plane's loader), scan (poll core). Only pattern_db.cc knows
// Hyperscan; this header shows opaque pointers. Expressions given here are already in Hyperscan's syntax (regex_syntax.h makes
// them from RE2's) and are matched against the whole subject: each is compiled as \A(?:EXPRESSION)\z.
//
// Facts that shape it (Hyperscan 5.4.0): a database with more than 10,000 patterns, or one pattern that can match the empty
// string, loses the small-write engine that makes short subjects fast; compilation can take seconds and gigabytes for hostile
// input, hence the child process; any scan result but "done" or "stopped by us" says nothing about matches, so it is reported as
// kFailed and the matcher answers with an error, never with "no match".
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lib/base/status.h"

namespace millrace::route {

inline constexpr uint32_t kMaxPatternsPerDb = 8'192;    // below Hyperscan's small-write limit of 10,000
inline constexpr uint32_t kMaxExpressionBytes = 8'000;  // Hyperscan's own limit is 16,000 after our rewriting
inline constexpr size_t kDbAlignment = 64;

// "hyperscan 5.4.0 ... avx2": databases move only between processes that show the same text (handshake of the two programs).
std::string platform();

// ---- compile (control; heap, slow) -----------------------------------------------------------------------------------

struct Pattern {
  std::string expression;      // Hyperscan syntax, not anchored
  bool matches_empty = false;  // it also matches "": compiled with HS_FLAG_ALLOWEMPTY
  friend bool operator==(const Pattern&, const Pattern&) = default;
};
// What one database holds; a pattern's position is the id that scan() reports. 1..kMaxPatternsPerDb patterns.
struct PatternSet {
  std::vector<Pattern> patterns;
};
// Of the expressions and flags in order, and of the Hyperscan version: equal hash, equal database.
uint64_t hash_of(const PatternSet& set);

struct CompileFailure {
  std::string message;  // Hyperscan's words, or "ran out of memory (limit ...)", "took longer than ..."
  int pattern = -1;     // position of the pattern at fault; -1: the set as a whole
};
// The serialized database, or why there is none.
struct CompiledSet {
  std::vector<uint8_t> serialized;  // empty on failure
  CompileFailure failure;
  bool ok() const { return !serialized.empty(); }
};

struct CompileLimits {
  uint64_t memory_bytes = uint64_t{2} << 30;  // address space that one child may add to what it inherits
  uint32_t seconds = 120;                     // processor time of one child, and wall-clock time per set it was given
  uint32_t children = 2;                      // that work at the same time
};

// In this process: no protection against hostile expressions. For tests, and for the child.
CompiledSet compile_set(const PatternSet& set);
// In child processes with limited memory and time; one result per set, in order. A set that kills its child fails alone: the
// others are given to a new one. Blocks; callable from any thread. The child makes no other use of the parent's state.
std::vector<CompiledSet> compile_sets_in_child(std::span<const PatternSet> sets, const CompileLimits& limits = {});

// ---- load (the loader thread; heap) ----------------------------------------------------------------------------------

// A database ready to scan: immutable, shared by all workers.
class PatternDb {
 public:
  // Copies and checks (Hyperscan verifies version, platform and CRC); `serialized` may go afterwards.
  static base::Result<std::shared_ptr<const PatternDb>> load(std::span<const uint8_t> serialized);
  ~PatternDb();
  PatternDb(const PatternDb&) = delete;
  PatternDb& operator=(const PatternDb&) = delete;

  size_t size_bytes() const { return size_bytes_; }
  size_t scratch_bytes() const { return scratch_bytes_; }  // what a scratch for this database alone takes

 private:
  friend class PatternScratch;
  friend struct Scanner;
  PatternDb() = default;
  void* memory_ = nullptr;  // hs_database_t, kDbAlignment-aligned
  size_t size_bytes_ = 0, scratch_bytes_ = 0;
};

// Working memory of hs_scan: one per worker, big enough for every database that the worker may scan. The loader keeps a
// prototype, fits it to each new database, and hands every worker a clone together with the snapshot whenever grew() says so.
class PatternScratch {
 public:
  PatternScratch() = default;
  ~PatternScratch();
  PatternScratch(PatternScratch&& o) noexcept : raw_(o.raw_) { o.raw_ = nullptr; }
  PatternScratch& operator=(PatternScratch&& o) noexcept {
    std::swap(raw_, o.raw_);
    return *this;
  }

  // Grows to what `db` needs. *grew (may be null): whether it had to, so that workers need a new clone.
  base::Status fit(const PatternDb& db, bool* grew = nullptr);
  base::Result<PatternScratch> clone() const;  // of an empty one: empty
  size_t size_bytes() const;
  bool empty() const { return raw_ == nullptr; }

 private:
  friend struct Scanner;
  void* raw_ = nullptr;  // hs_scratch_t
};

// ---- scan (poll core: no heap, no lock, no system call) ---------------------------------------------------------------

enum class ScanStatus : uint8_t { kDone, kFailed };  // kFailed: the answer is unknown (bad scratch, engine error)

// Calls on_match(context, position) once for each pattern that matches the whole subject, in no particular order; it returns true
// to stop (which is kDone too) and must not scan with the same scratch. The subject holds no NUL-terminator; any bytes are legal,
// but patterns only match well-formed UTF-8 (as RE2's do): a subject that is not matches nothing.
using OnMatch = bool (*)(void* context, uint32_t position);
ScanStatus scan(const PatternDb& db, const PatternScratch& scratch, std::string_view subject, OnMatch on_match, void* context);

}  // namespace millrace::route

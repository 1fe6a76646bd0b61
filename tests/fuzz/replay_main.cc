// Runs one fuzz target without libFuzzer, in every ordinary test build: each corpus file, each of its prefixes, and a number of
// random mutations, always with a page behind that cannot be read.
//
//   replay CORPUS_FOLDER [MUTATIONS]      MILLRACE_SEED=n repeats a run; of one that fails the last line is the input, in
//   hexadecimal
#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <span>
#include <unistd.h>
#include <vector>

#include "lib/base/prng.h"
#include "tests/support/guard_page.h"
#include "tests/support/seed.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace {

using Bytes = std::vector<uint8_t>;
constexpr size_t kMaxInput = 64 * 1024;   // larger corpus files are cut
constexpr size_t kPrefixesPerFile = 512;  // all of them for what fits, evenly spread ones for larger files
constexpr uint64_t kDefaultMutations = 5000;

std::span<const uint8_t> running;  // the input under test

// What a failure leaves behind: `xxd -r -p` makes a corpus file of it.
void show_input(int signal) {
  constexpr char kHex[] = "0123456789abcdef";
  char line[512];
  const auto put = [](const char* text, size_t size) {
    [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, text, size);
  };
  for (size_t at = 0; at < running.size();) {
    size_t n = 0;
    for (; n < sizeof line && at < running.size(); ++at) {
      line[n++] = kHex[running[at] >> 4];
      line[n++] = kHex[running[at] & 15];
    }
    put(line, n);
  }
  put("\n", 1);
  std::signal(signal, SIG_DFL);
  std::raise(signal);
}

Bytes mutate(Bytes input, const std::vector<Bytes>& corpus, millrace::base::Prng& random) {
  for (uint64_t n = 1 + random.below(4); n > 0; --n) {
    const size_t at = input.empty() ? 0 : random.below(input.size());
    const auto position = input.begin() + static_cast<ptrdiff_t>(at);
    switch (random.below(7)) {
      case 0:
        if (!input.empty()) *position = static_cast<uint8_t>(*position ^ 1u << random.below(8));
        break;
      case 1:
        if (!input.empty()) *position = static_cast<uint8_t>(random.next());
        break;
      case 2: {  // values at the edges of length fields
        constexpr uint8_t kEdges[] = {0, 1, 2, 0x7f, 0x80, 0xfe, 0xff};
        if (!input.empty()) *position = kEdges[random.below(sizeof kEdges)];
        break;
      }
      case 3:
        input.resize(at);
        break;
      case 4:
        input.insert(position, static_cast<uint8_t>(random.next()));
        break;
      case 5:
        if (!input.empty()) input.erase(position);
        break;
      default: {  // the head of one, the tail of another
        const Bytes& other = corpus[random.below(corpus.size())];
        if (other.empty()) break;
        input.resize(at);
        input.insert(input.end(), other.begin() + static_cast<ptrdiff_t>(random.below(other.size())), other.end());
        if (input.size() > kMaxInput) input.resize(kMaxInput);
      }
    }
  }
  if (input.size() > kMaxInput) input.resize(kMaxInput);
  return input;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "usage: %s CORPUS_FOLDER [MUTATIONS]\n", argv[0]);
    return 2;
  }
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::directory_iterator(argv[1]))
    if (entry.is_regular_file()) files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  if (files.empty()) {
    std::fprintf(stderr, "no corpus in %s\n", argv[1]);
    return 1;
  }
  const uint64_t mutations = argc > 2 ? std::strtoull(argv[2], nullptr, 10) : kDefaultMutations;
  const uint64_t seed = millrace::support::run_seed();
  std::printf("%zu files, %llu mutations, MILLRACE_SEED=%llu\n", files.size(), static_cast<unsigned long long>(mutations),
              static_cast<unsigned long long>(seed));
  std::fflush(stdout);

  for (const int signal : {SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL}) std::signal(signal, show_input);
  millrace::support::GuardPage guard(kMaxInput);
  const auto run = [&guard](const uint8_t* data, size_t size) {
    const auto placed = guard.place({data, size});
    running = {placed.data(), placed.size()};
    LLVMFuzzerTestOneInput(placed.data(), placed.size());
  };
  std::vector<Bytes> corpus;
  for (const auto& file : files) {
    std::ifstream in(file, std::ios::binary);
    Bytes bytes{std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
    if (bytes.size() > kMaxInput) bytes.resize(kMaxInput);
    const size_t step = bytes.size() / kPrefixesPerFile + 1;
    for (size_t n = 0; n < bytes.size(); n += step) run(bytes.data(), n);
    run(bytes.data(), bytes.size());
    corpus.push_back(std::move(bytes));
  }
  millrace::base::Prng random(seed);
  for (uint64_t i = 0; i < mutations; ++i) {
    const Bytes input = mutate(corpus[random.below(corpus.size())], corpus, random);
    run(input.data(), input.size());
  }
  return 0;
}

// Many verbs over one connection: a file or a pipe of lines, each as it would be typed behind "millctl".
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iostream>

#include "control/cli/structured.h"
#include "control/cli/table.h"
#include "control/cli/verbs.h"
#include "control/json_text.h"

namespace millrace::cli {

namespace {

// What a verb prints, kept instead of shown. glibc's streams are variables, so that everything that prints by name is caught.
class Capture {
 public:
  Capture() : out_(stdout), err_(stderr) {
    stdout = open_memstream(&text_[0], &size_[0]);
    stderr = open_memstream(&text_[1], &size_[1]);
  }
  ~Capture() {
    if (out_ != nullptr) end();
    std::free(text_[0]);
    std::free(text_[1]);
  }
  Capture(const Capture&) = delete;
  Capture& operator=(const Capture&) = delete;
  void end() {
    std::fclose(stdout);
    std::fclose(stderr);
    stdout = out_;
    stderr = err_;
    out_ = nullptr;
  }
  // Of the standard output (0) or error (1), without line ends behind it; after end().
  std::string text(int which) const {
    std::string s(text_[which], size_[which]);
    while (!s.empty() && s.back() == '\n') s.pop_back();
    return s;
  }

 private:
  FILE *out_, *err_;
  char* text_[2] = {nullptr, nullptr};
  size_t size_[2] = {0, 0};
};

// JSON as one line: a line end is never part of a JSON string.
std::string one_line(std::string json) {
  std::string out;
  for (size_t i = 0; i < json.size(); ++i) {
    if (json[i] != '\n') {
      out += json[i];
      continue;
    }
    while (i + 1 < json.size() && json[i + 1] == ' ') ++i;
  }
  return out;
}

// What became of a line: one line of JSON, or one YAML document.
void print_line(const Globals& g, const std::string& json) {
  if (g.yaml()) std::puts("---");
  print_structured(g, json);
}

int run_line(const Globals& g, size_t number, const std::string& line, const std::vector<std::string>& words) {
  if (!g.json() && !g.yaml()) {
    std::printf("%s\n", paint(std::to_string(number) + ": " + line, Color::kDim).c_str());
    return run_words(words, g, true);
  }
  Capture capture;
  Globals in_json = g;
  in_json.output = "json";
  const int code = run_words(words, in_json, true);
  capture.end();
  const std::string out = capture.text(0), err = capture.text(1);
  std::string json = "{\"line\": " + std::to_string(number) + ", \"command\": " + control::json_quote(line) +
                     ", \"exit\": " + std::to_string(code);
  if (!out.empty()) json += ", \"result\": " + (out[0] == '{' || out[0] == '[' ? one_line(out) : control::json_quote(out));
  if (!err.empty()) json += ", \"error\": " + control::json_quote(err);
  print_line(g, json + "}");
  return code;
}

}  // namespace

bool split_words(const std::string& line, std::vector<std::string>* words, std::string* error) {
  std::string word;
  bool in_word = false;
  char quote = 0;
  for (size_t i = 0; i < line.size(); ++i) {
    const char c = line[i];
    if (quote != 0) {
      if (c == quote) quote = 0;
      else if (c == '\\' && quote == '"' && i + 1 < line.size() && (line[i + 1] == '"' || line[i + 1] == '\\')) word += line[++i];
      else word += c;
    } else if (c == ' ' || c == '\t' || c == '\r') {
      if (in_word) words->push_back(std::move(word));
      word.clear();
      in_word = false;
    } else if (c == '#' && !in_word) {
      break;
    } else {
      in_word = true;
      if (c == '\'' || c == '"') {
        quote = c;
      } else if (c == '\\') {
        if (++i == line.size()) {
          *error = "the line ends with a backslash; a command is one line";
          return false;
        }
        word += line[i];
      } else {
        word += c;
      }
    }
  }
  if (quote != 0) {
    *error = std::string("the quote ") + quote + " is not closed";
    return false;
  }
  if (in_word) words->push_back(std::move(word));
  return true;
}

int run_batch(const Globals& g, const BatchOptions& o) {
  std::ifstream file;
  if (o.file != "-") {
    file.open(o.file, std::ios::binary);
    if (!file) {
      std::fprintf(stderr, "millctl: %s: %s\n", o.file.c_str(), std::strerror(errno));
      return kRefused;
    }
  }
  std::istream& in = o.file == "-" ? std::cin : file;
  int first_failure = kDone;
  size_t done = 0, failed = 0, number = 0;
  for (std::string line; std::getline(in, line);) {
    ++number;
    std::vector<std::string> words;
    std::string error;
    int code = kDone;
    if (!split_words(line, &words, &error)) {
      std::fprintf(stderr, "millctl: line %zu: %s\n", number, error.c_str());
      code = kUsage;
      if (g.json() || g.yaml())
        print_line(g, "{\"line\": " + std::to_string(number) + ", \"command\": " + control::json_quote(line) +
                          ", \"exit\": " + std::to_string(code) + ", \"error\": " + control::json_quote(error) + "}");
    } else {
      if (!words.empty() && words[0] == "millctl") words.erase(words.begin());
      if (words.empty()) continue;
      code = run_line(g, number, line, words);
    }
    std::fflush(stdout);
    code == kDone ? ++done : ++failed;
    if (code == kDone) continue;
    if (first_failure == kDone) first_failure = code;
    if (o.keep_going && code != kNoControl) continue;
    std::fprintf(stderr, "millctl: stopped at line %zu with exit code %d; %zu line%s done before it\n", number, code, done,
                 done == 1 ? " was" : "s were");
    return first_failure;
  }
  if (failed != 0) std::fprintf(stderr, "millctl: %zu of %zu lines failed\n", failed, done + failed);
  return first_failure;
}

}  // namespace millrace::cli

#include "line_parser.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "program.h"

namespace svit {

std::string quoted(std::string_view word) { return "'" + std::string(word.substr(0, 80)) + "'"; }

void LineParser::fail(const std::string& what) const {
  throw Error("program.txt line " + std::to_string(line_) + ": " + what);
}

Words LineParser::split(std::string_view line) const {
  Words words;
  while (true) {
    const std::size_t stop = line.find(' ');
    const std::string_view word = line.substr(0, stop);
    if (word.empty()) fail("empty line, or a blank too many");
    const auto control = [](char c) { return static_cast<unsigned char>(c) < 0x21 || c == 0x7f; };
    if (std::any_of(word.begin(), word.end(), control)) fail("control character in the text");
    words.push_back(word);
    if (stop == std::string_view::npos) return words;
    line.remove_prefix(stop + 1);
  }
}

void LineParser::expect_words(const Words& words, std::size_t count) const {
  if (words.size() != count) {
    fail(quoted(words[0]) + " wants " + std::to_string(count - 1) + " values, got " +
         std::to_string(words.size() - 1));
  }
}

void LineParser::expect_at_least(const Words& words, std::size_t count) const {
  if (words.size() < count) fail(quoted(words[0]) + " is cut off");
}

void LineParser::expect_word(std::string_view got, std::string_view wanted) const {
  if (got != wanted) fail("expected " + quoted(wanted) + ", got " + quoted(got));
}

std::uint64_t LineParser::number(std::string_view word, std::uint64_t limit, const char* what) const {
  std::uint64_t value = 0;
  const auto [stop, error] = std::from_chars(word.data(), word.data() + word.size(), value);
  if (error == std::errc::invalid_argument || stop != word.data() + word.size()) {
    fail(std::string(what) + " is no number: " + quoted(word));
  }
  if (error != std::errc() || value > limit) {
    fail(std::string(what) + " is " + quoted(word) + ", the largest allowed is " + std::to_string(limit));
  }
  return value;
}

double LineParser::real(std::string_view word, const char* what) const {
  double value = 0;
  const char* last = word.data() + word.size();
  const auto [stop, error] = std::from_chars(word.data(), last, value);
  if (error == std::errc() && stop == last && std::isfinite(value)) return value;
  fail("the " + std::string(what) + " is no finite number: " + quoted(word));
}

std::string LineParser::decoded(std::string_view word) const {
  std::string text;
  for (; !word.empty(); word.remove_prefix(1)) {
    if (word[0] != '%') {
      text += word[0];
      continue;
    }
    unsigned value = 0;
    const std::string_view code = word.substr(1, 2);
    const auto [stop, error] = std::from_chars(code.data(), code.data() + code.size(), value, 16);
    if (error != std::errc() || stop != code.data() + 2 || value == 0) fail("not the code of a character: " + quoted(word));
    text += static_cast<char>(value);
    word.remove_prefix(2);
  }
  return text;
}

}  // namespace svit

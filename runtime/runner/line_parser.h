// The words and numbers of a text that is parsed line by line; every error names the line.
#ifndef SVIT_LINE_PARSER_H_
#define SVIT_LINE_PARSER_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace svit {

using Words = std::vector<std::string_view>;

// In quotation marks, cut to 80 bytes.
std::string quoted(std::string_view word);

// Every function throws Error if the text is not what it wants.
class LineParser {
 protected:
  [[noreturn]] void fail(const std::string& what) const;

  // Divides a line at its blanks; there is one between two words, and no control character.
  Words split(std::string_view line) const;
  void expect_words(const Words& words, std::size_t count) const;
  void expect_at_least(const Words& words, std::size_t count) const;
  void expect_word(std::string_view got, std::string_view wanted) const;
  std::uint64_t number(std::string_view word, std::uint64_t limit, const char* what) const;  // 0 to the limit
  double real(std::string_view word, const char* what) const;                                // finite
  std::string decoded(std::string_view word) const;  // %XX stands for the byte of that hexadecimal number

  std::size_t line_ = 1;
};

}  // namespace svit

#endif  // SVIT_LINE_PARSER_H_

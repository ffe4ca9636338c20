// Pieces of JSON text.
#ifndef SVIT_JSON_H_
#define SVIT_JSON_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace svit {

std::string json_string(std::string_view text);

std::string json_number(const std::optional<std::uint64_t>& value);  // null if empty

template <typename Items, typename Write>
std::string json_array(const Items& items, Write write) {
  std::string json;
  for (const auto& item : items) json += (json.empty() ? "" : ",") + write(item);
  return "[" + json + "]";
}

}  // namespace svit

#endif  // SVIT_JSON_H_

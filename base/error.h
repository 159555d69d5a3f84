// Errors as values. An Error is a std::error_code of one module's category, and a sentence with the
// facts (which file, which offset, which peer). Each category lists, for each of its codes, a stable
// symbol ("store.no_space"), what happened, what the operator can do, and whether a retry can help.
// An Error that a peer reported keeps the peer's symbol, cause and fix.
#pragma once

#include <boost/system/result.hpp>
#include <cstdint>
#include <string>
#include <string_view>
#include <system_error>

namespace backhaul {

enum class Retry : std::uint8_t {
  no,     // the same request fails again until someone changes something
  later,  // a passing fault (link, load): try again after a pause
};

struct ErrorInfo {
  std::string_view symbol;   // stable, machine-readable: "module.what"
  std::string_view message;  // one sentence, what happened
  std::string_view fix;      // one sentence, what the operator can do
  Retry retry = Retry::no;
};

// Base of every module's category. `info` is total: an unknown value gives an "unknown" entry.
class ErrorCategory : public std::error_category {
 public:
  virtual const ErrorInfo& info(int value) const noexcept = 0;
  std::string message(int value) const override { return std::string(info(value).message); }
};

// A category over a table; entry i describes the enumerator with value i + 1 (0 is success).
class TableCategory final : public ErrorCategory {
 public:
  template <std::size_t N>
  TableCategory(const char* name, const ErrorInfo (&table)[N]) : name_(name), table_(table), size_(N) {}
  const char* name() const noexcept override { return name_; }
  const ErrorInfo& info(int value) const noexcept override;

 private:
  const char* name_;
  const ErrorInfo* table_;
  std::size_t size_;
};

class [[nodiscard]] Error {
 public:
  Error() = default;  // no error: what Result's error() gives when there is none
  Error(std::error_code code, std::string cause) : code_(code), cause_(std::move(cause)) {}

  // An operating system error: `number` is an errno value, `what` the action and its object
  // ("write disk.vhdx at 4096").
  static Error from_errno(int number, const std::string& what);
  // What a peer reported in an error frame; the texts are already bounded and printable.
  static Error from_peer(std::string symbol, std::string cause, std::string fix, Retry retry);

  // Whether this is `code`, said by us or by a peer. A peer's symbol that no code of ours has is none of them.
  bool is(const std::error_code& code) const noexcept;
  // Of a peer's error BaseErrc::peer_reported: for what only this process may say of itself (cancelled, timed out).
  const std::error_code& code() const noexcept { return code_; }
  std::string symbol() const;
  std::string message() const;  // the code's sentence, without the facts
  const std::string& cause() const noexcept { return cause_; }
  std::string fix() const;
  Retry retry() const noexcept;
  bool from_peer() const noexcept { return !peer_symbol_.empty(); }

  // "store.no_space: the target's file system is full (write disk at 4096). Fix: ..."
  std::string to_string() const;

  // The same error with more context in front of its cause.
  Error with_context(std::string_view context) &&;

 private:
  std::error_code code_;
  std::string cause_;
  std::string peer_symbol_, peer_fix_;
  Retry peer_retry_ = Retry::no;
};

inline bool operator==(const Error& error, const std::error_code& code) { return error.is(code); }  // for EXPECT_EQ

// Called by boost::system::result when value() is used on an error: a programming mistake.
[[noreturn]] void throw_exception_from_error(const Error& error, const boost::source_location& where);

template <class T>
using Result = boost::system::result<T, Error>;

// Errors that belong to no single module.
enum class BaseErrc {
  invalid_argument = 1,  // a value given by an operator or a caller is out of range
  cancelled,             // the operation was told to stop
  timed_out,             // a peer or a device did not answer in time
  internal,              // an invariant of ours broke: a defect
  peer_reported,         // the other end reported the error (symbol, cause and fix are its own)
  unsupported,           // this system or build lacks what the request needs
};
const ErrorCategory& base_category() noexcept;
inline std::error_code make_error_code(BaseErrc value) { return {static_cast<int>(value), base_category()}; }

inline Error make_error(std::error_code code, std::string cause = {}) { return Error(code, std::move(cause)); }

}  // namespace backhaul

template <>
struct std::is_error_code_enum<backhaul::BaseErrc> : std::true_type {};

// BH_TRY(auto x, expression): x gets the value, or the enclosing function returns the error.
// BH_RETURN_IF_ERROR(expression): the same for Result<void>.
#define BH_CONCAT_INNER(a, b) a##b
#define BH_CONCAT(a, b) BH_CONCAT_INNER(a, b)
#define BH_TRY_IMPL(result, declaration, ...)    \
  auto result = (__VA_ARGS__);                   \
  if (!result) return std::move(result).error(); \
  declaration = std::move(*result)
#define BH_TRY(declaration, ...) BH_TRY_IMPL(BH_CONCAT(bh_result_, __LINE__), declaration, __VA_ARGS__)
#define BH_RETURN_IF_ERROR(...)                                                          \
  do {                                                                                   \
    if (auto bh_result = (__VA_ARGS__); !bh_result) return std::move(bh_result).error(); \
  } while (false)

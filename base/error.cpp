#include "base/error.h"

#include <cerrno>
#include <stdexcept>

namespace backhaul {
namespace {

constexpr ErrorInfo kUnknown{"base.unknown", "an unknown error", "Report this with the log.", Retry::no};

constexpr ErrorInfo kBase[] = {
    {"base.invalid_argument", "a given value is not allowed", "Correct the value and run the command again.",
     Retry::no},
    {"base.cancelled", "the operation was cancelled", "Start it again when wanted.", Retry::no},
    {"base.timed_out", "no answer came in time",
     "Check the network and the load of the other end, then run the same command again.", Retry::later},
    {"base.internal", "an internal check failed", "This is a defect: keep the log and report it.", Retry::no},
    {"base.peer_reported", "the other end reported an error", "See the log of the other end.", Retry::no},
    {"base.unsupported", "this system lacks what the request needs", "See the cause for what is missing.", Retry::no},
};

struct OsInfo {
  int number;
  ErrorInfo info;
};
constexpr OsInfo kOs[] = {
    {ENOSPC,
     {"io.no_space", "the file system is full",
      "Free space there, then run the same command again: it goes on where it stopped.", Retry::no}},
    {EDQUOT,
     {"io.no_space", "the disk quota is used up",
      "Raise the quota, then run the same command again: it goes on where it stopped.", Retry::no}},
    {EIO,
     {"io.device_error", "the device reported an I/O error",
      "Check the device and the kernel log, repair or replace it, then run the same command again.", Retry::no}},
    {ENOENT, {"io.not_found", "no such file", "Check the path.", Retry::no}},
    {EACCES,
     {"io.permission", "permission denied", "Grant the user that runs Backhaul access to the file.", Retry::no}},
    {EPERM,
     {"io.permission", "the operation is not permitted", "Grant the user that runs Backhaul access to the file.",
      Retry::no}},
    {EROFS, {"io.read_only", "the file system is read-only", "Mount it writable or choose another place.", Retry::no}},
    {EEXIST, {"io.exists", "the file exists already", "Remove it or choose another name.", Retry::no}},
    {ENOMEM,
     {"io.no_memory", "the kernel could not give the memory", "Raise the memlock limit (LimitMEMLOCK) or free memory.",
      Retry::no}},
    {EBUSY, {"io.busy", "the file or device is in use", "Stop what uses it, then try again.", Retry::no}},
    {ECONNREFUSED,
     {"link.refused", "the connection was refused", "Check that the host agent runs and listens at that address.",
      Retry::later}},
    {ECONNRESET,
     {"link.lost", "the connection was lost", "Check the network; the same command goes on where it stopped.",
      Retry::later}},
    {EPIPE,
     {"link.lost", "the connection was lost", "Check the network; the same command goes on where it stopped.",
      Retry::later}},
    {ETIMEDOUT,
     {"link.timed_out", "the connection timed out", "Check the network; the same command goes on where it stopped.",
      Retry::later}},
    {EHOSTUNREACH,
     {"link.unreachable", "the host cannot be reached", "Check the address and the routes.", Retry::later}},
    {ENETUNREACH,
     {"link.unreachable", "the network cannot be reached", "Check the address and the routes.", Retry::later}},
    {EADDRINUSE,
     {"link.address_in_use", "the address is in use", "Choose another port or stop the other program.", Retry::no}},
};
constexpr ErrorInfo kOsOther{"io.failed", "the operating system refused the operation", "See the cause.", Retry::no};

const ErrorInfo& info_of(const std::error_code& code) {
  if (code.category() == std::generic_category() || code.category() == std::system_category()) {
    for (const auto& entry : kOs)
      if (entry.number == code.value()) return entry.info;
    return kOsOther;
  }
  if (const auto* category = dynamic_cast<const ErrorCategory*>(&code.category())) return category->info(code.value());
  return kUnknown;
}

}  // namespace

const ErrorInfo& TableCategory::info(int value) const noexcept {
  if (value < 1 || static_cast<std::size_t>(value) > size_) return kUnknown;
  return table_[value - 1];
}

const ErrorCategory& base_category() noexcept {
  static const TableCategory category("base", kBase);
  return category;
}

Error Error::from_errno(int number, const std::string& what) {
  std::error_code code(number, std::generic_category());
  return {code, what + ": " + code.message()};
}

Error Error::from_peer(std::string symbol, std::string cause, std::string fix, Retry retry) {
  Error error(BaseErrc::peer_reported, std::move(cause));
  error.peer_symbol_ = symbol.empty() ? std::string("base.peer_reported") : std::move(symbol);
  error.peer_fix_ = std::move(fix);
  error.peer_retry_ = retry;
  return error;
}

bool Error::is(const std::error_code& code) const noexcept {
  if (code_ == code) return true;
  if (!from_peer()) return false;
  const auto& info = info_of(code);
  return &info != &kUnknown && &info != &kOsOther && info.symbol == peer_symbol_;  // those two stand for many codes
}

std::string Error::symbol() const { return from_peer() ? peer_symbol_ : std::string(info_of(code_).symbol); }

std::string Error::message() const { return std::string(info_of(code_).message); }

std::string Error::fix() const { return from_peer() ? peer_fix_ : std::string(info_of(code_).fix); }

Retry Error::retry() const noexcept { return from_peer() ? peer_retry_ : info_of(code_).retry; }

std::string Error::to_string() const {
  std::string text = symbol() + ": ";
  if (from_peer()) {
    text += cause_;
  } else {
    text += message();
    if (!cause_.empty()) text += " (" + cause_ + ")";
  }
  if (auto advice = fix(); !advice.empty()) text += ". Fix: " + advice;
  return text;
}

Error Error::with_context(std::string_view context) && {
  cause_ = cause_.empty() ? std::string(context) : std::string(context) + ": " + cause_;
  return std::move(*this);
}

void throw_exception_from_error(const Error& error, const boost::source_location& where) {
  throw std::logic_error(error.to_string() + " at " + where.to_string());
}

}  // namespace backhaul

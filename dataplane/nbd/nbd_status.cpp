#include "dataplane/nbd/nbd_status.h"

#include <algorithm>

#include "dataplane/nbd/nbd.h"

namespace backhaul {
namespace {

constexpr std::uint64_t kAskAtOnce = std::uint64_t{1} << 30;  // NBD's lengths have 32 bits
constexpr std::size_t kMaxRuns = 65536;                       // of one reply

struct Asked {
  NbdStatus status;
  std::uint64_t limit = 0;
  const std::string& context;
  NbdMarks marks;

  static int on_extents(void* self, const char* context, std::uint64_t offset, std::uint32_t* entries,
                        std::size_t count, int*) {
    auto& asked = *static_cast<Asked*>(self);
    if (asked.context != context || offset != asked.status.end) return 0;
    for (std::size_t i = 0; i + 1 < count && asked.status.marked.size() < kMaxRuns; i += 2)
      asked.add(entries[i], asked.marks(entries[i + 1]));
    return 0;
  }

  void add(std::uint64_t length, bool mark) {
    length = std::min(length, limit - status.end);  // a server may tell more than it was asked
    if (mark && length != 0) {
      if (!status.marked.empty() && status.marked.back().end() == status.end)
        status.marked.back().length += length;
      else
        status.marked.push_back({status.end, length});
    }
    status.end += length;
  }
};

}  // namespace

Result<NbdStatus> ask_nbd_status(NbdConnection& connection, std::uint64_t at, NbdMarks marks) {
  Asked asked{{}, 0, connection.context(), marks};
  auto& status = asked.status;
  status.begin = status.end = align_down(at, connection.minimum_block());
  asked.limit = std::min(connection.size(), status.begin + kAskAtOnce);
  const auto ask = [&](nbd_completion_callback done) {
    return nbd_aio_block_status(connection.handle(), asked.limit - status.begin, status.begin,
                                {&Asked::on_extents, &asked, nullptr}, done, 0);
  };
  BH_TRY(const int error, connection.run(ask, connection.timeouts().reply));
  if (error != 0)
    return make_error(NbdErrc::broken, "block status of " + connection.name() + " at " + std::to_string(at) + ": " +
                                           std::generic_category().message(error));
  if (status.end <= at) return make_error(NbdErrc::bad_server, connection.name() + ": an empty block status");
  return std::move(status);
}

Result<std::optional<std::vector<ByteRange>>> read_nbd_bitmap(const std::string& uri, const std::string& context,
                                                              std::uint64_t size_bytes, std::size_t max_ranges,
                                                              std::chrono::seconds timeout) {
  BH_RETURN_IF_ERROR(check_nbd_uri(uri));
  BH_TRY(const auto connection, NbdConnection::open(uri, {timeout, timeout}, context));
  if (!connection->tells_context()) return make_error(NbdErrc::bad_server, uri + ": it does not export " + context);
  if (connection->size() < size_bytes)
    return make_error(NbdErrc::bad_server,
                      uri + ": " + std::to_string(connection->size()) + " of " + std::to_string(size_bytes) + " bytes");
  std::vector<ByteRange> ranges;
  for (std::uint64_t at = 0; at < size_bytes;) {
    BH_TRY(const auto status, ask_nbd_status(*connection, at, [](std::uint32_t flags) { return (flags & 1) != 0; }));
    for (auto range : status.marked) {
      if (range.offset >= size_bytes) break;
      range.length = std::min(range.length, size_bytes - range.offset);
      if (!ranges.empty() && ranges.back().end() == range.offset)
        ranges.back().length += range.length;
      else
        ranges.push_back(range);
    }
    if (ranges.size() > max_ranges) return std::optional<std::vector<ByteRange>>();
    at = status.end;
  }
  return std::optional(std::move(ranges));
}

}  // namespace backhaul

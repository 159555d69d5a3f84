#include "sim/sim_image.h"

#include <algorithm>
#include <cassert>
#include <cstring>

#include "base/units.h"

namespace backhaul::sim {
namespace {

// Calls visit(page number, offset in the page, offset in the range, length) for every page that the range touches.
template <class Visit>
void each_page(std::uint64_t offset, std::uint64_t length, Visit visit) {
  for (std::uint64_t done = 0; done < length;) {
    const std::uint64_t at = offset + done;
    const std::uint64_t inside = at % SimImage::kPageSize;
    const std::uint64_t part = std::min(length - done, SimImage::kPageSize - inside);
    visit(at / SimImage::kPageSize, inside, done, part);
    done += part;
  }
}

}  // namespace

void SimImage::read(std::uint64_t offset, MutableBytes into) const {
  assert(offset <= size_ && into.size() <= size_ - offset);
  each_page(offset, into.size(), [&](auto number, auto inside, auto done, auto part) {
    const auto page = pages_.find(number);
    if (page == pages_.end())
      std::memset(into.data() + done, 0, part);
    else
      std::memcpy(into.data() + done, page->second->data() + inside, part);
  });
}

void SimImage::write(std::uint64_t offset, Bytes from) {
  if (from.empty()) return;
  size_ = std::max(size_, offset + from.size());
  each_page(offset, from.size(), [&](auto number, auto inside, auto done, auto part) {
    auto& page = pages_[number];
    if (!page)
      page = std::make_shared<Page>();
    else if (page.use_count() > 1)
      page = std::make_shared<Page>(*page);
    std::memcpy(page->data() + inside, from.data() + done, part);
  });
}

void SimImage::zero(std::uint64_t offset, std::uint64_t length) {
  if (length == 0) return;
  assert(offset <= size_ && length <= size_ - offset);
  const std::uint64_t first = align_up(offset, kPageSize), last = align_down(offset + length, kPageSize);
  static constexpr Page kZeros{};
  const auto clear_part = [&](std::uint64_t from, std::uint64_t to) {
    if (from < to && pages_.count(from / kPageSize) != 0) write(from, Bytes(kZeros.data(), to - from));
  };
  if (first > last) return clear_part(offset, offset + length);  // inside one page
  clear_part(offset, first);
  clear_part(last, offset + length);
  pages_.erase(pages_.lower_bound(first / kPageSize), pages_.lower_bound(last / kPageSize));
}

void SimImage::resize(std::uint64_t size) {
  if (size < size_) {
    // What lies behind the end must read as zeros when the file grows again.
    zero(size, size_ - size);
    pages_.erase(pages_.lower_bound(div_up(size, kPageSize)), pages_.end());
  }
  size_ = size;
}

std::optional<ByteRange> SimImage::next_data(std::uint64_t from) const {
  auto page = pages_.lower_bound(from / kPageSize);
  if (from >= size_ || page == pages_.end()) return std::nullopt;
  const std::uint64_t start = std::max(from, page->first * kPageSize);
  std::uint64_t number = page->first;
  while (page != pages_.end() && page->first == number) {
    ++page;
    ++number;
  }
  if (start >= size_) return std::nullopt;
  return ByteRange{start, std::min(number * kPageSize, size_) - start};
}

std::uint64_t SimImage::bytes_missing(std::uint64_t offset, std::uint64_t length) const {
  std::uint64_t missing = 0;
  each_page(offset, length,
            [&](auto number, auto, auto, auto) { missing += pages_.count(number) == 0 ? kPageSize : 0; });
  return missing;
}

}  // namespace backhaul::sim

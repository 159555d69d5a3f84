#include "dataplane/disk/raw_disk.h"

#include <algorithm>
#include <cassert>
#include <limits>
#include <mutex>
#include <string>

#include "base/units.h"

namespace backhaul {
namespace {

class RawDisk final : public Disk {
 public:
  // `stored_size` bytes lie in the file, the rest up to `size` is padding.
  RawDisk(std::unique_ptr<File> file, std::uint64_t stored_size, std::uint64_t size)
      : file_(std::move(file)), stored_size_(stored_size), size_(size) {}

  DiskFormat format() const noexcept override { return DiskFormat::raw; }
  std::uint64_t size() const noexcept override { return size_; }
  std::uint32_t logical_sector_size() const noexcept override { return 512; }
  File& file() noexcept override { return *file_; }

  Segment map(std::uint64_t offset, std::uint64_t length) const noexcept override {
    assert(length != 0 && offset < size_ && length <= size_ - offset);
    if (offset >= stored_size_) return {Segment::Kind::zero, 0, length};
    return {Segment::Kind::data, offset, std::min(length, stored_size_ - offset)};
  }

  Result<std::optional<ByteRange>> next_data(std::uint64_t from) const override {
    if (from >= stored_size_) return std::optional<ByteRange>();
    BH_TRY(auto range, file_->next_data(from));
    // A disk may be shorter than the device that it lies on.
    if (!range || range->offset >= stored_size_) return std::optional<ByteRange>();
    range->length = std::min(range->length, stored_size_ - range->offset);
    return range;
  }

  Result<Segment> allocate(std::uint64_t offset, std::uint64_t length) override {
    const Segment segment = map(offset, length);
    if (segment.kind == Segment::Kind::data) return segment;
    return make_error(BaseErrc::invalid_argument,
                      file_->name() + " ends before " + std::to_string(offset) + ", only zeros can stand there");
  }

  Result<void> checkpoint() override {
    const std::lock_guard lock(checkpoint_);
    return file_->sync();
  }
  Result<void> close() override { return checkpoint(); }

 private:
  const std::unique_ptr<File> file_;
  const std::uint64_t stored_size_, size_;
  std::mutex checkpoint_;
};

}  // namespace

Result<std::unique_ptr<Disk>> create_raw_disk(std::unique_ptr<File> file, const DiskCreate& options) {
  assert(options.format == DiskFormat::raw);
  if (file->is_block_device()) {
    if (file->size() < options.size)
      return make_error(IoErrc::too_small, file->name() + " has " + std::to_string(file->size()) + " bytes, the disk " +
                                               std::to_string(options.size));
  } else {
    if (file->size() != 0) return make_error(BaseErrc::invalid_argument, file->name() + " is not empty");
    BH_RETURN_IF_ERROR(file->resize(options.size));
  }
  return std::unique_ptr<Disk>(std::make_unique<RawDisk>(std::move(file), options.size, options.size));
}

Result<std::unique_ptr<Disk>> open_raw_disk(std::unique_ptr<File> file, std::uint64_t round_up_to) {
  const std::uint64_t stored = file->size();
  const std::uint64_t unit = std::max<std::uint64_t>(round_up_to, 1);
  if (stored > std::numeric_limits<std::uint64_t>::max() - unit)
    return make_error(BaseErrc::invalid_argument, "round " + file->name() + " up to " + std::to_string(unit));
  return std::unique_ptr<Disk>(std::make_unique<RawDisk>(std::move(file), stored, align_up(stored, unit)));
}

}  // namespace backhaul

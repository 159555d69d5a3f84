#include "dataplane/disk/vhdx_disk.h"

#include <algorithm>
#include <cassert>
#include <limits>

#include "dataplane/disk/vhdx.h"

namespace backhaul::vhdx {

Result<std::unique_ptr<Disk>> VhdxDisk::open(std::unique_ptr<File> file, OpenMode mode, Random& random,
                                             bool just_created) {
  auto disk = std::unique_ptr<VhdxDisk>(new VhdxDisk(std::move(file), mode, random));
  BH_RETURN_IF_ERROR(disk->load());
  disk->changing_ = just_created;
  return std::unique_ptr<Disk>(std::move(disk));
}

Result<void> VhdxDisk::load() {
  BH_RETURN_IF_ERROR(check_file_identifier(*file_));
  BH_TRY(headers_, HeaderSlots::load(*file_));
  View view(*file_);
  if (!headers_.current().log_guid.is_zero()) {
    BH_RETURN_IF_ERROR(replay_log(view));
    if (mode_ == OpenMode::write) view = View(*file_);
  }
  BH_TRY(const auto regions, load_regions(view, headers_.current()));
  BH_TRY(metadata_, load_metadata(view, regions.metadata));
  const TableGeometry geometry{metadata_.disk_size, metadata_.block_size, metadata_.logical_sector_size};
  BH_TRY(table_, BlockTable::load(view, geometry, regions.bat, regions.all));
  BH_RETURN_IF_ERROR(check_changes_above(view));
  next_place_ = std::max(align_up(file_->size(), kAlignment), table_.loaded_end());
  log_ = LogWriter(headers_.current().log_offset, headers_.current().log_length, random_guid(random_));
  return {};
}

Result<void> VhdxDisk::replay_log(View& view) {
  BH_TRY(const auto log, PendingLog::find(*file_, headers_.current()));
  if (mode_ == OpenMode::read) return log.replay(view);
  BH_RETURN_IF_ERROR(log.replay(*file_));
  auto header = headers_.current();
  header.log_guid = {};
  return headers_.update(*file_, header);
}

// A log holds metadata. One that changes a payload block, or places one behind the file's end, must be replayed into
// the file, since map() refers to the file as it is.
Result<void> VhdxDisk::check_changes_above(const View& view) const {
  if (view.changes().empty()) return {};
  std::vector<std::uint64_t> places;
  bool in_blocks = false;
  for (std::uint64_t block = 0; block < table_.geometry().block_count(); ++block)
    if (const auto place = table_.place(block)) {
      places.push_back(*place);
      in_blocks = in_blocks || *place + table_.geometry().used_length(block) > file_->size();
    }
  std::ranges::sort(places);
  for (const auto& change : view.changes()) {
    const auto after = std::ranges::lower_bound(places, change.range.end());
    in_blocks = in_blocks || (after != places.begin() && *(after - 1) + metadata_.block_size > change.range.offset);
  }
  if (!in_blocks) return {};
  return make_error(
      VhdxErrc::bad_log,
      file_->name() + ": the pending log changes disk content, which needs a replay by opening the file for writing");
}

Segment VhdxDisk::map(std::uint64_t offset, std::uint64_t length) const noexcept {
  assert(length > 0 && offset < size() && length <= size() - offset);
  const std::uint64_t block_size = metadata_.block_size;
  std::uint64_t block = offset / block_size;
  const auto place = table_.place(block);
  std::uint64_t covered = std::min(length, block_size - offset % block_size);
  // Goes on while the next block follows in the file, or has no place either.
  for (auto last = place; covered < length; covered += std::min(length - covered, block_size)) {
    const auto next = table_.place(++block);
    if (next.has_value() != place.has_value() || (next && *next != *last + block_size)) break;
    last = next;
  }
  if (!place) return {Segment::Kind::zero, 0, covered};
  return {Segment::Kind::data, *place + offset % block_size, covered};
}

Result<std::optional<ByteRange>> VhdxDisk::next_data(std::uint64_t from) const {
  const std::uint64_t block_size = metadata_.block_size;
  const auto block_count = table_.geometry().block_count();
  ByteRange hole;  // in the file, as last asked: blocks inside it need no question
  for (std::uint64_t block = from / block_size; block < block_count; ++block) {
    const auto place = table_.place(block);
    if (!place) continue;
    const auto in_block = block == from / block_size ? from % block_size : 0;
    const auto first = *place + in_block, last = *place + block_size;
    if (first >= hole.offset && last <= hole.end()) continue;
    BH_TRY(const auto data, file_->next_data(first));
    const auto data_start = data ? std::max(data->offset, first) : std::numeric_limits<std::uint64_t>::max();
    if (data_start >= last) {
      hole = {first, data_start - first};
      continue;
    }
    const ByteRange run{block * block_size + (data_start - *place), std::min(data->end(), last) - data_start};
    const auto extended = extend_run(run, data_start, data->end());
    if (extended.offset >= size()) break;  // only the tail of the last block, behind the disk's end
    return std::optional(ByteRange{extended.offset, std::min(extended.length, size() - extended.offset)});
  }
  return std::optional<ByteRange>();
}

// Extends a run of data over the blocks that follow it both on the disk and in the file, up to the end of the file's
// data.
ByteRange VhdxDisk::extend_run(ByteRange run, std::uint64_t file_offset, std::uint64_t data_end) const noexcept {
  const std::uint64_t block_size = metadata_.block_size;
  while (run.end() % block_size == 0 && run.end() < size()) {
    const auto run_file_end = file_offset + run.length;
    const auto place = table_.place(run.end() / block_size);
    if (!place || *place != run_file_end || data_end <= run_file_end) break;
    run.length += std::min(block_size, data_end - run_file_end);
  }
  return run;
}

Result<Segment> VhdxDisk::allocate(std::uint64_t offset, std::uint64_t length) {
  assert(length > 0 && offset < size() && length <= size() - offset);
  if (!changing_.load(std::memory_order_acquire)) BH_RETURN_IF_ERROR(begin_changes());
  const auto block = offset / metadata_.block_size;
  if (!table_.place(block)) BH_RETURN_IF_ERROR(give_place(block));
  return map(offset, length);
}

// 2.2.2: both write GUIDs change before the first change of the disk's content.
Result<void> VhdxDisk::begin_changes() {
  if (mode_ == OpenMode::read)
    return make_error(BaseErrc::invalid_argument, file_->name() + " is open for reading only");
  const std::lock_guard lock(checkpoint_mutex_);
  if (changing_.load(std::memory_order_relaxed)) return {};
  auto header = headers_.current();
  header.file_write_guid = random_guid(random_);
  header.data_write_guid = random_guid(random_);
  BH_RETURN_IF_ERROR(headers_.update(*file_, header));
  changing_.store(true, std::memory_order_release);
  return {};
}

Result<void> VhdxDisk::give_place(std::uint64_t block) {
  const std::lock_guard lock(allocate_mutex_);
  if (table_.place(block)) return {};
  BH_RETURN_IF_ERROR(file_->resize(next_place_ + metadata_.block_size));
  table_.set_place(block, next_place_);
  next_place_ += metadata_.block_size;
  dirty_pages_.insert(table_.page_of(block));
  return {};
}

Result<void> VhdxDisk::checkpoint() {
  const std::lock_guard lock(checkpoint_mutex_);
  return checkpoint_locked();
}

Result<void> VhdxDisk::checkpoint_locked() {
  if (mode_ == OpenMode::read) return {};
  std::vector<std::uint64_t> pages;
  {
    const std::lock_guard lock(allocate_mutex_);
    pages.assign(dirty_pages_.begin(), dirty_pages_.end());
  }
  if (pages.empty()) return file_->sync();
  // One log entry per batch; 126 pages hold 63 Ki blocks, so there is nearly always one.
  for (std::size_t first = 0; first < pages.size(); first += LogWriter::kMaxPages) {
    const auto count = std::min(pages.size() - first, LogWriter::kMaxPages);
    BH_TRY(auto batch, take_batch(std::span(pages).subspan(first, count)));
    if (auto done = commit(std::move(batch)); !done) {
      const std::lock_guard lock(allocate_mutex_);
      dirty_pages_.insert(pages.begin() + static_cast<std::ptrdiff_t>(first), pages.end());
      return done;
    }
  }
  return {};
}

// Entries made after this, while content is being synced, wait for the next checkpoint: their place may not be durable.
Result<VhdxDisk::Batch> VhdxDisk::take_batch(std::span<const std::uint64_t> pages) {
  Batch batch;
  for (const auto page : pages) {
    auto& taken =
        batch.pages.emplace_back(LogWriter::Page{table_.page_offset(page), std::vector<std::byte>(kLogSector)});
    BH_RETURN_IF_ERROR(file_->read_at(taken.file_offset, taken.content));
  }
  const std::lock_guard lock(allocate_mutex_);
  batch.file_size = file_->size();
  for (std::size_t i = 0; i < pages.size(); ++i) {
    table_.fill_page(pages[i], batch.pages[i].content);
    dirty_pages_.erase(pages[i]);
  }
  return batch;
}

Result<void> VhdxDisk::commit(Batch batch) {
  // An earlier, failed commit must be in place before its log entry may be overwritten.
  BH_RETURN_IF_ERROR(write_in_place());
  BH_RETURN_IF_ERROR(file_->sync());
  BH_RETURN_IF_ERROR(log_.write(*file_, batch.pages, batch.file_size));
  if (!log_live_) {
    auto header = headers_.current();
    header.log_guid = log_.guid();
    BH_RETURN_IF_ERROR(headers_.update(*file_, header));
    log_live_ = true;
  }
  logged_pages_ = std::move(batch.pages);
  return write_in_place();
}

Result<void> VhdxDisk::write_in_place() {
  if (logged_pages_.empty()) return {};
  for (const auto& page : logged_pages_) BH_RETURN_IF_ERROR(file_->write_at(page.file_offset, page.content));
  BH_RETURN_IF_ERROR(file_->sync());
  logged_pages_.clear();
  return {};
}

Result<void> VhdxDisk::close() {
  const std::lock_guard lock(checkpoint_mutex_);
  BH_RETURN_IF_ERROR(checkpoint_locked());
  BH_RETURN_IF_ERROR(write_in_place());
  if (!log_live_) return {};
  auto header = headers_.current();
  header.log_guid = {};
  BH_RETURN_IF_ERROR(headers_.update(*file_, header));
  log_live_ = false;
  return {};
}

}  // namespace backhaul::vhdx

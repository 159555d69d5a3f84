// A storage that calls a function before each sync of its files, whose error the sync then returns: for tests that need
// something to happen just then. A file alone also tells what was read at once. Shared by this folder's tests.
// Everything else goes to the storage below.
#pragma once

#include <functional>
#include <utility>
#include <vector>

#include "dataplane/disk/io.h"

namespace backhaul {

class HookedFile final : public File {
 public:
  HookedFile(std::unique_ptr<File> file, const std::function<Result<void>()>& before_sync)
      : file_(std::move(file)), before_sync_(before_sync) {}
  const std::string& name() const noexcept override { return file_->name(); }
  std::uint64_t size() const noexcept override { return file_->size(); }
  bool is_block_device() const noexcept override { return file_->is_block_device(); }
  std::uint32_t io_alignment() const noexcept override { return file_->io_alignment(); }
  Result<void> read_at(std::uint64_t offset, MutableBytes into) override { return file_->read_at(offset, into); }
  Result<void> write_at(std::uint64_t offset, Bytes from) override { return file_->write_at(offset, from); }
  Result<void> zero_at(std::uint64_t offset, std::uint64_t length) override { return file_->zero_at(offset, length); }
  Result<void> resize(std::uint64_t size) override { return file_->resize(size); }
  Result<void> sync() override {
    if (before_sync_) BH_RETURN_IF_ERROR(before_sync_());
    return file_->sync();
  }
  Result<std::optional<ByteRange>> next_data(std::uint64_t from) override { return file_->next_data(from); }
  void drop_cache(std::uint64_t offset, std::uint64_t length) noexcept override { file_->drop_cache(offset, length); }
  Result<FileIdentity> identity() override { return file_->identity(); }
  File& native() noexcept override { return file_->native(); }
  Result<void> read_all(std::span<const ReadPart> parts) override {
    read_at_once.push_back(parts.size());
    return file_->read_all(parts);
  }

  std::vector<std::size_t> read_at_once;  // the parts of each read_all

 private:
  std::unique_ptr<File> file_;
  const std::function<Result<void>()>& before_sync_;
};

// Opens only; `storage` outlives it and is used for the rest.
class HookedStorage final : public Storage {
 public:
  explicit HookedStorage(Storage& storage) : storage_(storage) {}
  std::function<Result<void>()> before_sync;  // set while no file is in use

  Result<Kind> kind(std::string_view path) override { return storage_.kind(path); }
  Result<std::unique_ptr<File>> open(std::string_view path, OpenMode mode) override {
    BH_TRY(auto file, storage_.open(path, mode));
    return std::unique_ptr<File>(std::make_unique<HookedFile>(std::move(file), before_sync));
  }
  Result<std::unique_ptr<File>> create(std::string_view path) override { return storage_.create(path); }
  Result<void> clone(std::string_view from, std::string_view to) override { return storage_.clone(from, to); }
  Result<void> rename(std::string_view from, std::string_view to, bool replace) override {
    return storage_.rename(from, to, replace);
  }
  Result<void> remove(std::string_view path) override { return storage_.remove(path); }
  Result<void> make_directory(std::string_view path) override { return storage_.make_directory(path); }
  Result<void> remove_directory(std::string_view path) override { return storage_.remove_directory(path); }
  Result<std::vector<std::string>> list(std::string_view path) override { return storage_.list(path); }
  Result<std::uint64_t> free_space_bytes() override { return storage_.free_space_bytes(); }

 private:
  Storage& storage_;
};

}  // namespace backhaul

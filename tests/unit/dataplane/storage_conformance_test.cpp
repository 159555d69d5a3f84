// What every implementation of the disk seam must do: Linux on a disk's file system, Linux on tmpfs, and the
// simulation.
#include "unit/dataplane/storage_conformance.h"

namespace backhaul {
namespace {

using namespace conformance;

INSTANTIATE_TEST_SUITE_P(All, StorageConformance, ::testing::Values("Disk", "Tmpfs", "Sim"),
                         [](const auto& place) { return std::string(place.param); });

TEST_P(StorageConformance, RefusesPathsThatAreNoPlainNames) {
  const std::string long_name(256, 'a');
  for (const std::string_view path : std::initializer_list<std::string_view>{
           "", "/etc/passwd", "..", "../x", "a/../b", "a/..", "./a", "a//b", "a/", "a/.", "tab\there", "line\nbreak",
           std::string_view("nul\0x", 5), "del\x7f", long_name}) {
    EXPECT_EQ(storage().create(path).error().code(), IoErrc::outside_store) << path;
    EXPECT_EQ(storage().open(path, OpenMode::read).error().code(), IoErrc::outside_store) << path;
    EXPECT_EQ(storage().kind(path).error().code(), IoErrc::outside_store) << path;
    EXPECT_EQ(storage().remove(path).error().code(), IoErrc::outside_store) << path;
    EXPECT_EQ(storage().make_directory(path).error().code(), IoErrc::outside_store) << path;
    EXPECT_EQ(storage().remove_directory(path).error().code(), IoErrc::outside_store) << path;
    EXPECT_EQ(storage().rename(path, "x", true).error().code(), IoErrc::outside_store) << path;
    EXPECT_EQ(storage().rename("x", path, true).error().code(), IoErrc::outside_store) << path;
    EXPECT_EQ(storage().clone("x", path).error().code(), IoErrc::outside_store) << path;
    if (path.empty()) continue;  // names the root there
    EXPECT_EQ(storage().list(path).error().code(), IoErrc::outside_store) << path;
  }
  EXPECT_EQ(*storage().list(""), std::vector<std::string>());
  EXPECT_TRUE(storage().create("..hidden but plain")) << "two dots inside a name lead nowhere";
}

TEST_P(StorageConformance, CreatesOnceAndOpensWhatIsThere) {
  EXPECT_EQ(*storage().kind("disk"), Storage::Kind::none);
  EXPECT_EQ(storage().open("disk", OpenMode::read).error().code(), errno_code(ENOENT));
  auto file = create("disk");
  EXPECT_EQ(file->size(), 0U);
  EXPECT_EQ(*storage().kind("disk"), Storage::Kind::file);
  EXPECT_EQ(storage().create("disk").error().code(), errno_code(EEXIST));
  EXPECT_EQ(storage().create("missing/disk").error().code(), errno_code(ENOENT));
  auto opened = storage().open("disk", OpenMode::read);
  ASSERT_TRUE(opened);
  EXPECT_EQ((*opened)->name(), "disk");
  const std::byte one{1};
  EXPECT_FALSE((*opened)->write_at(0, {&one, 1})) << "opened for reading only";
}

TEST_P(StorageConformance, MakesListsAndRemovesDirectories) {
  ASSERT_TRUE(storage().make_directory("a/b/c"));
  ASSERT_TRUE(storage().make_directory("a/b/c")) << "again is no error";
  EXPECT_EQ(*storage().kind("a/b"), Storage::Kind::directory);
  EXPECT_EQ(storage().open("a/b", OpenMode::read).error().code(), IoErrc::not_a_disk);
  create("a/b/z");
  create("a/b/y");
  EXPECT_EQ(*storage().list("a/b"), (std::vector<std::string>{"c", "y", "z"}));
  EXPECT_EQ(storage().list("none").error().code(), errno_code(ENOENT));
  EXPECT_EQ(storage().make_directory("a/b/z/d").error().code(), errno_code(ENOTDIR));

  EXPECT_EQ(storage().remove_directory("a/b").error().code(), errno_code(ENOTEMPTY)) << "it has a subdirectory";
  EXPECT_EQ(*storage().list("a/b"), (std::vector<std::string>{"c", "y", "z"})) << "and nothing of it is gone";
  ASSERT_TRUE(storage().remove_directory("a/b/c"));
  ASSERT_TRUE(storage().remove_directory("a/b")) << "files go with it";
  ASSERT_TRUE(storage().remove_directory("a/b")) << "again is no error";
  EXPECT_EQ(*storage().list("a"), std::vector<std::string>());
  EXPECT_FALSE(storage().remove("a")) << "remove is for files";
}

TEST_P(StorageConformance, RenamesWithAndWithoutReplacing) {
  ASSERT_TRUE(storage().make_directory("d"));
  fill_file("new", 1);
  fill_file("d/old", 2);
  EXPECT_EQ(storage().rename("new", "d/old", false).error().code(), errno_code(EEXIST));
  EXPECT_EQ(*storage().kind("new"), Storage::Kind::file);
  ASSERT_TRUE(storage().rename("new", "d/old", true));
  EXPECT_EQ(*storage().kind("new"), Storage::Kind::none);
  EXPECT_EQ(read_all(**storage().open("d/old", OpenMode::read)), std::vector<std::byte>(100, std::byte{1}));
  ASSERT_TRUE(storage().rename("d/old", "d/other", false));
  EXPECT_EQ(storage().rename("none", "x", true).error().code(), errno_code(ENOENT));
  ASSERT_TRUE(storage().remove("d/other"));
  ASSERT_TRUE(storage().remove("d/other")) << "again is no error";
  ASSERT_TRUE(storage().remove("no/directory")) << "nor with a directory that is not there";
}

TEST_P(StorageConformance, ClonesOrSaysThatItCannotAndLeavesNothing) {
  fill_file("from", 3);
  const auto cloned = storage().clone("from", "to");
  if (cloned) {
    EXPECT_EQ(read_all(**storage().open("to", OpenMode::read)), std::vector<std::byte>(100, std::byte{3}));
  } else {
    EXPECT_EQ(cloned.error().code(), IoErrc::clone_unsupported);
    EXPECT_EQ(*storage().kind("to"), Storage::Kind::none);
  }
  fill_file("there", 4);
  EXPECT_EQ(storage().clone("from", "there").error().code(), errno_code(EEXIST));
  EXPECT_EQ(read_all(**storage().open("there", OpenMode::read)), std::vector<std::byte>(100, std::byte{4}));
}

// Files
// ----------------------------------------------------------------------------------------------------------------

TEST_P(StorageConformance, ReadsWhatWasWrittenAtAnyAlignment) {
  auto file = create("disk", 100'000);
  std::vector<std::byte> expected(100'000);
  sim::SimRandom random(sim::seed_from_environment(11));
  for (int i = 0; i < 200; ++i) {
    const std::uint64_t offset = random.below(expected.size()), length = random.below(expected.size() - offset + 1);
    if (random.one_in(3)) {
      std::fill_n(expected.begin() + static_cast<std::ptrdiff_t>(offset), length, std::byte{0});
      ASSERT_TRUE(file->zero_at(offset, length));
    } else {
      const MutableBytes part(expected.data() + offset, std::min<std::uint64_t>(length, 9000));
      fill(part, random.next());
      ASSERT_TRUE(file->write_at(offset, part));
    }
  }
  EXPECT_EQ(read_all(*file), expected);
}

TEST_P(StorageConformance, ManyReadsAtOnceEachGetTheirBytes) {
  auto file = create("many");
  sim::SimRandom random(5);
  AlignedBuffer content(200 * 4096 + 100);
  for (auto& byte : content.span()) byte = static_cast<std::byte>(random.next());
  const Bytes whole(content.span());
  ASSERT_TRUE(file->write_through(0, whole.first(200 * 4096)));  // whole pages, then a part of one
  ASSERT_TRUE(file->write_through(200 * 4096, whole.subspan(200 * 4096)));
  EXPECT_EQ(file->size(), whole.size());

  AlignedBuffer into(whole.size());
  std::vector<ReadPart> parts;
  for (std::uint64_t at = 0; at < whole.size(); at += 4096) {
    const auto part = into.span().subspan(at, std::min<std::size_t>(4096, whole.size() - at));
    parts.push_back({at, part});
  }
  std::swap(parts.front(), parts.back());
  ASSERT_TRUE(file->read_all(parts));
  EXPECT_TRUE(std::equal(whole.begin(), whole.end(), into.span().begin()));
  ASSERT_TRUE(file->read_all({}));

  // Neither offset nor memory are aligned.
  const std::vector<ReadPart> odd = {{1, into.span().subspan(7, 5000)}, {9000, into.span().subspan(6001, 3)}};
  ASSERT_TRUE(file->read_all(odd));
  EXPECT_TRUE(std::equal(odd[0].into.begin(), odd[0].into.end(), whole.begin() + 1));
  EXPECT_TRUE(std::equal(odd[1].into.begin(), odd[1].into.end(), whole.begin() + 9000));

  parts.push_back({whole.size() - 10, into.span().first(11)});
  EXPECT_EQ(file->read_all(parts).error().code(), IoErrc::unexpected_end);
}

TEST_P(StorageConformance, ReadingPastTheEndIsAnErrorAndNotShort) {
  auto file = create("disk", 1000);
  std::byte bytes[10];
  EXPECT_TRUE(file->read_at(990, bytes));
  EXPECT_EQ(file->read_at(991, bytes).error().code(), IoErrc::unexpected_end);
  EXPECT_EQ(file->read_at(5000, bytes).error().code(), IoErrc::unexpected_end);
  EXPECT_EQ(file->zero_at(991, 10).error().code(), BaseErrc::invalid_argument);
}

TEST_P(StorageConformance, GrowsWithZerosAndForgetsWhatWasCutOff) {
  auto file = create("disk");
  std::vector<std::byte> bytes(10'000, std::byte{9});
  ASSERT_TRUE(file->write_at(0, bytes)) << "writing at the end makes the file longer";
  EXPECT_EQ(file->size(), 10'000U);
  ASSERT_TRUE(file->resize(5001));
  EXPECT_EQ(file->size(), 5001U);
  ASSERT_TRUE(file->resize(20'000));
  const auto now = read_all(*file);
  EXPECT_EQ(now[5000], std::byte{9});
  EXPECT_TRUE(all_zero(Bytes(now).subspan(5001)));
  ASSERT_TRUE(file->sync());
}

TEST_P(StorageConformance, FindsDataBetweenHoles) {
  auto file = create("disk", 64 * kMiB + 100);
  EXPECT_FALSE(file->next_data(0)->has_value());
  EXPECT_FALSE(file->next_data(65 * kMiB)->has_value());
  const std::vector<std::byte> bytes(kMiB, std::byte{1});
  ASSERT_TRUE(file->write_at(16 * kMiB, bytes));
  ASSERT_TRUE(file->write_at(64 * kMiB, Bytes(bytes).first(100)));
  ASSERT_TRUE(file->sync());

  auto first = *file->next_data(0);
  ASSERT_TRUE(first.has_value());
  EXPECT_LE(first->offset, 16 * kMiB);
  EXPECT_GT(first->offset, 14 * kMiB) << "the hole before it is not called data";
  EXPECT_GE(first->end(), 17 * kMiB);
  EXPECT_LT(first->end(), 19 * kMiB);
  EXPECT_EQ((*file->next_data(16 * kMiB + 5))->offset, 16 * kMiB + 5) << "never before `from`";
  auto last = *file->next_data(first->end());
  ASSERT_TRUE(last.has_value());
  EXPECT_EQ(last->end(), file->size()) << "data ends with the file";

  ASSERT_TRUE(file->zero_at(16 * kMiB, kMiB));
  ASSERT_TRUE(file->sync());
  EXPECT_GT((*file->next_data(0))->offset, 60 * kMiB) << "zeroing made a hole";
}

TEST_P(StorageConformance, IdentityChangesWithTheContentAndWithTheFile) {
  auto file = create("disk", 1000);
  const auto before = *file->identity();
  EXPECT_EQ(before, *file->identity());
  EXPECT_EQ(before.size, 1000U);
  const std::byte one{1};
  // A clock tick of the file system may pass before it can tell.
  bool changed = false;
  for (int i = 0; i < 10'000 && !changed; ++i) {
    ASSERT_TRUE(file->write_at(0, {&one, 1}));
    changed = *file->identity() != before;
  }
  EXPECT_TRUE(changed);
  auto other = create("other", 1000);
  EXPECT_NE(other->identity()->inode, file->identity()->inode);
}

// Queues
// ---------------------------------------------------------------------------------------------------------------

// Offsets and lengths around every boundary that matters, in files whose size is no multiple of anything.
TEST_P(StorageConformance, QueueWritesAndReadsAnyRangeOfAnOddFile) {
  constexpr std::uint64_t kSize = 3 * 65536 + 1234;
  auto file = create("disk", kSize);
  auto io = queue();
  std::vector<std::byte> expected(kSize);
  AlignedBuffer memory(2 * 65536), back(2 * 65536);
  io->register_memory(memory.span());
  sim::SimRandom random(sim::seed_from_environment(13));
  for (int i = 0; i < 150; ++i) {
    constexpr std::uint64_t kSpots[] = {0,        1, 511, 512, 4095, 4096, 4097, 65536, 3 * 65536, 3 * 65536 + 1024,
                                        kSize - 1};
    constexpr std::uint64_t kLengths[] = {0, 1, 100, 512, 4096, 4097, 8192, 65536, 70'000};
    const std::uint64_t offset = kSpots[random.below(std::size(kSpots))];
    const std::uint64_t length = std::min(kLengths[random.below(std::size(kLengths))], kSize - offset);
    // Aligned with the offset, with the memory, or with nothing.
    const std::uint64_t shift = random.one_in(2) ? offset % 4096 : random.below(3) * 7;
    const auto from = memory.span().subspan(shift, length);
    fill(from, random.next());
    std::copy(from.begin(), from.end(), expected.begin() + static_cast<std::ptrdiff_t>(offset));
    io->write(*file, offset, from, 1);
    const auto written = finish(*io);
    ASSERT_EQ(written.at(1).error, 0) << offset << "+" << length;
    ASSERT_EQ(written.at(1).bytes, length);

    // Reads may end past the file: they are short then, and exactly so.
    const auto into =
        back.span().subspan(shift, std::min<std::uint64_t>(align_up(length, 4096) + 4096, 2 * 65536 - shift));
    io->read(*file, offset, into, 2);
    const auto read = finish(*io);
    ASSERT_EQ(read.at(2).error, 0);
    ASSERT_EQ(read.at(2).bytes, std::min<std::uint64_t>(into.size(), kSize - offset)) << offset << "+" << into.size();
    ASSERT_TRUE(std::equal(into.begin(), into.begin() + read.at(2).bytes,
                           expected.begin() + static_cast<std::ptrdiff_t>(offset)))
        << offset << "+" << length << " shift " << shift;
  }
  EXPECT_EQ(read_all(*file), expected) << "the metadata path sees what the queue wrote";
  EXPECT_EQ(file->size(), kSize);
}

TEST_P(StorageConformance, QueueAndMetadataPathSeeEachOther) {
  auto file = create("disk", 64 * 1024);
  auto io = queue();
  AlignedBuffer memory(64 * 1024);
  for (unsigned round = 1; round < 20; ++round) {
    const std::vector<std::byte> bytes(1000, std::byte(round));
    ASSERT_TRUE(file->write_at(3000 + round, bytes));  // leaves dirty pages
    io->read(*file, 0, memory.span(), round);
    ASSERT_EQ(finish(*io).at(round).error, 0);
    ASSERT_TRUE(std::equal(bytes.begin(), bytes.end(), memory.data() + 3000 + round));

    fill(memory.span(), round);
    io->write(*file, 0, memory.span(), round);
    ASSERT_EQ(finish(*io).at(round).error, 0);
    ASSERT_TRUE(std::equal(memory.data(), memory.data() + memory.size(), read_all(*file).begin()));
  }
}

// A lane writes its own blocks; the tail of one and the head of the next meet in a page that nobody may tear.
TEST_P(StorageConformance, NeighboursInOnePageWrittenAtOnceBothSurvive) {
  auto file = create("disk", 256 * 1024);
  auto io = queue(32);
  AlignedBuffer memory(512 * 1024);
  fill(memory.span(), 5);
  std::vector<std::byte> expected(file->size());
  for (int round = 0; round < 20; ++round) {
    // Cuts at odd places, and each piece in memory that is aligned as its offset is.
    std::uint64_t tag = 0;
    for (std::uint64_t at = 0; at < file->size(); ++tag) {
      const std::uint64_t length =
          std::min<std::uint64_t>(9000 + 131 * static_cast<unsigned>(round), file->size() - at);
      const auto from = memory.span().subspan(at + 4096 * static_cast<unsigned>(round), length);
      std::copy(from.begin(), from.end(), expected.begin() + static_cast<std::ptrdiff_t>(at));
      io->write(*file, at, from, tag);
      at += length;
    }
    for (const auto& [_, completion] : finish(*io)) ASSERT_EQ(completion.error, 0);
    ASSERT_EQ(read_all(*file), expected) << round;
  }
}

TEST_P(StorageConformance, QueueFillsToItsCapacityAndCompletesEveryTagOnce) {
  auto file = create("disk", kMiB);
  auto io = queue(8);
  EXPECT_EQ(io->capacity(), 8U);
  AlignedBuffer memory(8 * 4096);
  for (int round = 0; round < 5; ++round) {
    for (std::uint64_t tag = 0; tag < 8; ++tag)
      io->read(*file, tag * 4096, memory.span().subspan(tag * 4096, 4096), tag);
    EXPECT_EQ(io->in_flight(), 8U);
    EXPECT_EQ(finish(*io).size(), 8U);
  }
  EXPECT_TRUE(all_zero(memory.span()));
}

TEST_P(StorageConformance, QueueReportsErrorsForTheRequestTheyBelongTo) {
  auto file = create("disk", 8192);
  auto reader = std::move(*storage().open("disk", OpenMode::read));
  auto io = queue();
  AlignedBuffer memory(8192);
  io->write(*file, 4096, memory.span(), 1);  // ends past the size
  io->write(*reader, 0, memory.span(), 2);   // opened for reading
  io->read(*file, 8192, memory.span(), 3);   // at the end
  io->read(*file, kTiB, memory.span(), 4);   // far behind it
  io->write(*file, 0, memory.span(), 5);
  const auto done = finish(*io);
  EXPECT_EQ(done.at(1).error, EINVAL);
  EXPECT_EQ(done.at(2).error, EBADF);
  EXPECT_EQ(done.at(3).error, 0);
  EXPECT_EQ(done.at(3).bytes, 0U);
  EXPECT_EQ(done.at(4).bytes, 0U);
  EXPECT_EQ(done.at(5).error, 0);
  EXPECT_EQ(file->size(), 8192U) << "a queue never makes a file longer";
}

TEST_P(StorageConformance, QueueSyncs) {
  auto file = create("disk", 8192);
  auto io = queue();
  io->sync(*file, 9);
  EXPECT_EQ(finish(*io).at(9).error, 0);
}

TEST_P(StorageConformance, QueueMayGoWithRequestsUnderWay) {
  auto file = create("disk", kMiB);
  AlignedBuffer memory(kMiB);
  for (int round = 0; round < 10; ++round) {
    auto io = queue();
    for (std::uint64_t tag = 0; tag < 16; ++tag)
      io->read(*file, tag * 65536, memory.span().subspan(tag * 65536, 65536), tag);
    ASSERT_TRUE(io->wait(nullptr, Clock::Duration::zero()));
    io.reset();
    std::fill_n(memory.data(), memory.size(), std::byte{1});
    ASSERT_EQ(std::count(memory.data(), memory.data() + memory.size(), std::byte{1}), std::ptrdiff_t{kMiB});
  }
}

TEST_P(StorageConformance, WaitTimesOutAndLooksWithoutWaiting) {
  auto io = queue();
  const auto start = system_clock().now();
  auto none = io->wait(nullptr, milliseconds(20));
  ASSERT_TRUE(none);
  EXPECT_TRUE(none->empty());
  EXPECT_GE(system_clock().now() - start, milliseconds(20));
  EXPECT_TRUE(io->wait(nullptr, Clock::Duration::zero())->empty());

  SocketPair pair;
  const PollRequest poll{pair.near.get(), true, false};
  const auto again = system_clock().now();
  EXPECT_TRUE(io->wait(&poll, milliseconds(20))->empty());
  EXPECT_GE(system_clock().now() - again, milliseconds(20));
  const PollRequest no_handle{-1, true, false};
  EXPECT_TRUE(io->wait(&no_handle, seconds(60))->empty()) << "returns soon: such a stream is always asked again";
}

TEST_P(StorageConformance, PollWakesAWait) {
  auto io = queue();
  SocketPair pair;
  const PollRequest readable{pair.near.get(), true, false}, writable{pair.near.get(), false, true};
  const auto start = system_clock().now();
  for (int round = 0; round < 3; ++round) {
    EXPECT_TRUE(io->wait(&writable, seconds(30))->empty());
    ASSERT_EQ(::write(pair.far.get(), "x", 1), 1);
    EXPECT_TRUE(io->wait(&readable, seconds(30))->empty());
    char byte = 0;
    ASSERT_EQ(::read(pair.near.get(), &byte, 1), 1);
    // The readiness of before must not be reported again.
    const auto now = system_clock().now();
    EXPECT_TRUE(io->wait(&readable, milliseconds(15))->empty());
    EXPECT_GE(system_clock().now() - now, milliseconds(15));
  }
  pair.far.reset();
  EXPECT_TRUE(io->wait(&readable, seconds(30))->empty()) << "the other end's close is readiness, too";
  EXPECT_LT(system_clock().now() - start, seconds(20));
}

TEST_P(StorageConformance, ClosedPollHandleIsAnErrorAndTheQueueGoesOn) {
  auto io = queue();
  auto file = create("disk", 8192);
  SocketPair pair;
  const PollRequest poll{pair.near.get(), true, false};
  EXPECT_TRUE(io->wait(&poll, milliseconds(1))->empty());
  pair.near.reset();
  char byte = 0;
  EXPECT_EQ(::read(pair.far.get(), &byte, 1), 0) << "the queue keeps no hold on the socket";
  EXPECT_EQ(io->wait(&poll, seconds(5)).error().code(), errno_code(EBADF));
  AlignedBuffer memory(8192);
  io->read(*file, 0, memory.span(), 1);
  EXPECT_EQ(finish(*io).at(1).bytes, 8192U);
}

}  // namespace
}  // namespace backhaul

// One suite over every implementation of Store.
#include "control/store/store.h"

#include <gtest/gtest.h>
#include <sqlite3.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <thread>

#include "tests/unit/control/memory_store.h"

namespace backhaul {
namespace {

class TempDirectory {
 public:
  TempDirectory() {
    std::string name = (std::filesystem::temp_directory_path() / "bh-store-XXXXXX").string();
    path_ = mkdtemp(name.data());
  }
  ~TempDirectory() { std::filesystem::remove_all(path_); }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

struct Memory {
  std::unique_ptr<Store> store = make_memory_store();
  void reopen() {}
};
struct Sqlite {
  TempDirectory directory;
  std::unique_ptr<Store> store = open();
  std::unique_ptr<Store> open() { return open_sqlite_store(directory.path() / "jobs.db").value(); }
  void reopen() {
    store.reset();
    store = open();
  }
};

template <class T>
class StoreConformance : public ::testing::Test {
 protected:
  T fixture_;
  Store& store() { return *fixture_.store; }
  Result<void> put(const char* kind, const char* id, std::uint64_t expected, std::string body,
                   Durability durability = Durability::durable) {
    StoreWrite write{kind, id, expected, std::move(body)};
    return store().commit({&write, 1}, durability);
  }
};
using Implementations = ::testing::Types<Memory, Sqlite>;
TYPED_TEST_SUITE(StoreConformance, Implementations);

TYPED_TEST(StoreConformance, VersionsGrowFromOneAndOldOnesAreRefused) {
  EXPECT_FALSE(this->store().get("item", "a").value());
  ASSERT_TRUE(this->put("item", "a", 0, "one"));
  EXPECT_EQ(this->store().get("item", "a").value()->version, 1u);
  ASSERT_TRUE(this->put("item", "a", 1, "two", Durability::relaxed));
  auto stale = this->put("item", "a", 1, "three");
  ASSERT_FALSE(stale);
  EXPECT_EQ(stale.error(), make_error_code(ControlErrc::conflict));
  EXPECT_FALSE(this->put("item", "a", 0, "three"));
  EXPECT_EQ(this->store().get("item", "a").value()->body, "two");
  EXPECT_EQ(this->store().get("item", "a").value()->version, 2u);
}

TYPED_TEST(StoreConformance, AConflictInOneWriteChangesNothingAtAll) {
  ASSERT_TRUE(this->put("item", "a", 0, "a1"));
  const StoreWrite writes[] = {{"item", "a", 1, "a2"}, {"job", "1", 7, "j"}};
  EXPECT_FALSE(this->store().commit(writes, Durability::durable));
  EXPECT_EQ(this->store().get("item", "a").value()->body, "a1");
  EXPECT_FALSE(this->store().get("job", "1").value());
}

TYPED_TEST(StoreConformance, DeletingNeedsTheVersionAndAnExistingObject) {
  ASSERT_TRUE(this->put("item", "a", 0, "a1"));
  const StoreWrite wrong{"item", "a", 2, {}}, right{"item", "a", 1, {}}, absent{"item", "b", 0, {}};
  EXPECT_FALSE(this->store().commit({&wrong, 1}, Durability::durable));
  EXPECT_FALSE(this->store().commit({&absent, 1}, Durability::durable));
  EXPECT_TRUE(this->store().commit({&right, 1}, Durability::durable));
  EXPECT_FALSE(this->store().get("item", "a").value());
}

TYPED_TEST(StoreConformance, ListsOneKindInOrderOfIds) {
  ASSERT_TRUE(this->put("item", "b", 0, "2"));
  ASSERT_TRUE(this->put("item", "a", 0, "1"));
  ASSERT_TRUE(this->put("plan", "c", 0, "3"));
  auto items = this->store().list("item").value();
  ASSERT_EQ(items.size(), 2u);
  EXPECT_EQ(items[0].id, "a");
  EXPECT_EQ(items[1].body, "2");
}

TYPED_TEST(StoreConformance, NumbersAreNeverGivenTwiceEvenAfterReopening) {
  EXPECT_EQ(this->store().next_number("job").value(), 1u);
  EXPECT_EQ(this->store().next_number("job").value(), 2u);
  EXPECT_EQ(this->store().next_number("other").value(), 1u);
  this->fixture_.reopen();
  EXPECT_EQ(this->store().next_number("job").value(), 3u);
}

TYPED_TEST(StoreConformance, ALeaseIsHeldUntilItExpiresAndItsFenceGrowsWithEachOwner) {
  auto first = this->store().acquire_lease("jobs", "a", 10, 100).value();
  EXPECT_EQ(first.expires_unix_s, 110);
  EXPECT_FALSE(this->store().acquire_lease("jobs", "b", 10, 109));
  EXPECT_EQ(this->store().acquire_lease("jobs", "a", 10, 105).value().fence, first.fence);
  EXPECT_FALSE(this->store().acquire_lease("jobs", "b", 10, 114));
  EXPECT_GT(this->store().acquire_lease("jobs", "b", 10, 115).value().fence, first.fence);
  ASSERT_TRUE(this->store().release_lease("jobs", "a"));  // no longer its own: no effect
  EXPECT_FALSE(this->store().acquire_lease("jobs", "a", 10, 116));
  ASSERT_TRUE(this->store().release_lease("jobs", "b"));
  EXPECT_TRUE(this->store().acquire_lease("jobs", "a", 10, 116));
}

TYPED_TEST(StoreConformance, TheAuditLogIsReadNewestFirstInPagesAndByObject) {
  for (int i = 1; i <= 5; ++i)
    EXPECT_EQ(this->store().append_audit({0, i, "ann", "verb", i % 2 ? "item/a" : "item/b", "accepted", "d"}).value(),
              static_cast<unsigned>(i));
  auto page = this->store().list_audit("", 0, 2).value();
  ASSERT_EQ(page.size(), 2u);
  EXPECT_EQ(page[0].id, 5u);
  EXPECT_EQ(page[0].actor, "ann");
  page = this->store().list_audit("item/a", page[1].id, 10).value();
  ASSERT_EQ(page.size(), 2u);
  EXPECT_EQ(page[0].id, 3u);
}

TYPED_TEST(StoreConformance, TokensHaveUniqueNamesAndAreFoundByTheirPublicId) {
  ASSERT_TRUE(this->store().add_token({"ops", "id1", "hash", Role::operator_, 1, 2}));
  EXPECT_FALSE(this->store().add_token({"ops", "id2", "hash", Role::admin, 1, 2}));
  this->fixture_.reopen();
  auto found = this->store().find_token("id1").value();
  ASSERT_TRUE(found);
  EXPECT_EQ(found->role, Role::operator_);
  EXPECT_EQ(found->expires_unix_s, 2);
  EXPECT_FALSE(this->store().find_token("id2").value());
  EXPECT_FALSE(this->store().find_token("").value());
  EXPECT_TRUE(this->store().remove_token("ops").value());
  EXPECT_FALSE(this->store().remove_token("ops").value());
  EXPECT_TRUE(this->store().list_tokens().value().empty());
}

TYPED_TEST(StoreConformance, OfManyWritersOfOneVersionExactlyOneWins) {
  ASSERT_TRUE(this->put("item", "a", 0, "0"));
  std::atomic<int> wins = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i)
    threads.emplace_back([&] {
      for (std::uint64_t version = 1; version <= 20; ++version)
        wins += this->put("item", "a", version, "x", Durability::relaxed) ? 1 : 0;
    });
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(this->store().get("item", "a").value()->version, static_cast<unsigned>(1 + wins));
}

TEST(SqliteStore, KeepsEverythingOverAReopen) {
  Sqlite fixture;
  const StoreWrite write{"item", "a", 0, "body"};
  ASSERT_TRUE(fixture.store->commit({&write, 1}, Durability::durable));
  ASSERT_TRUE(fixture.store->append_audit({0, 1, "a", "b", "c", "d", "e"}));
  fixture.reopen();
  EXPECT_EQ(fixture.store->get("item", "a").value()->body, "body");
  EXPECT_EQ(fixture.store->list_audit("", 0, 9).value().size(), 1u);
}

TEST(SqliteStore, IsReadableByItsOwnerOnly) {
  Sqlite fixture;
  auto permissions = std::filesystem::status(fixture.directory.path() / "jobs.db").permissions();
  EXPECT_EQ(permissions, std::filesystem::perms::owner_read | std::filesystem::perms::owner_write);
}

void execute(const std::filesystem::path& file, const char* sql) {
  sqlite3* database = nullptr;
  ASSERT_EQ(sqlite3_open(file.c_str(), &database), SQLITE_OK);
  EXPECT_EQ(sqlite3_exec(database, sql, nullptr, nullptr, nullptr), SQLITE_OK);
  sqlite3_close(database);
}

TEST(SqliteStore, RefusesOtherProgramsFilesAndNewerSchemas) {
  TempDirectory directory;
  auto garbage = directory.path() / "garbage";
  std::ofstream(garbage) << std::string(8192, 'x');
  auto opened = open_sqlite_store(garbage);
  ASSERT_FALSE(opened);
  EXPECT_EQ(opened.error(), make_error_code(ControlErrc::store_damaged));

  auto foreign = directory.path() / "foreign";
  execute(foreign, "CREATE TABLE t (x)");
  EXPECT_FALSE(open_sqlite_store(foreign));

  auto newer = directory.path() / "newer";
  ASSERT_TRUE(open_sqlite_store(newer));
  execute(newer, "PRAGMA user_version=99");
  opened = open_sqlite_store(newer);
  ASSERT_FALSE(opened);
  EXPECT_NE(opened.error().cause().find("99"), std::string::npos);
}

TEST(Roles, AreParsedInAnyCase) {
  EXPECT_EQ(parse_role("operator"), Role::operator_);
  EXPECT_EQ(parse_role("Admin"), Role::admin);
  EXPECT_FALSE(parse_role("root"));
}

}  // namespace
}  // namespace backhaul

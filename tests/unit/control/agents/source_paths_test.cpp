// What may be read as a source, and what is a target's name: nothing outside the store and the named directories.
#include "control/agents/source_paths.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <fstream>

#include "dataplane/disk/io.h"
#include "dataplane/nbd/nbd.h"

namespace backhaul {
namespace {

namespace fs = std::filesystem;

class Sources : public ::testing::Test {
 protected:
  Sources() {
    std::string name = (fs::temp_directory_path() / "bh-paths-XXXXXX").string();
    root_ = fs::canonical(mkdtemp(name.data()));
    for (const auto* directory : {"store/vm", "snapshots", "outside"}) fs::create_directories(root_ / directory);
    for (const auto* file : {"store/vm/os.img", "snapshots/one", "outside/secret"}) std::ofstream(root_ / file) << "x";
    paths_ = *SourcePaths::make(root_ / "store", {root_ / "snapshots"});
  }
  ~Sources() override { fs::remove_all(root_); }

  void refused(const fs::path& path, const std::error_code& code = make_error_code(IoErrc::outside_store)) {
    const auto found = paths_.resolve(path.native());
    ASSERT_FALSE(found) << path << " led to " << *found;
    EXPECT_EQ(found.error(), code) << found.error().to_string();
  }
  static std::string at_socket(const fs::path& socket) { return "nbd+unix:///disk?socket=" + socket.string(); }

  fs::path root_;
  SourcePaths paths_;
};

TEST_F(Sources, below_the_store_are_readable_by_relative_and_absolute_path) {
  EXPECT_EQ(*paths_.resolve("vm/os.img"), (root_ / "store/vm/os.img").string());
  EXPECT_EQ(*paths_.resolve((root_ / "store/vm/os.img").string()), (root_ / "store/vm/os.img").string());
}

TEST_F(Sources, below_a_named_directory_are_readable) {
  EXPECT_EQ(*paths_.resolve((root_ / "snapshots/one").string()), (root_ / "snapshots/one").string());
}

TEST_F(Sources, elsewhere_are_refused_however_they_are_spelled) {
  refused(root_ / "outside/secret");
  refused(root_ / "store/../outside/secret");
  refused("../outside/secret");
  refused("vm/../../outside/secret");
  refused("");
  fs::create_symlink(root_ / "outside/secret", root_ / "store/link");
  refused("link");
  refused(root_ / "store/link");
}

TEST_F(Sources, the_roots_themselves_are_no_sources) { refused(root_ / "store"); }

TEST_F(Sources, a_name_that_only_begins_like_the_store_is_outside) {
  fs::create_directories(root_ / "store-two");
  std::ofstream(root_ / "store-two/os.img") << "x";
  refused(root_ / "store-two/os.img");
}

TEST_F(Sources, a_missing_file_is_an_error_that_names_it) {
  const auto found = paths_.resolve("vm/none.img");
  ASSERT_FALSE(found);
  EXPECT_NE(found.error().to_string().find("none.img"), std::string::npos) << found.error().to_string();
}

TEST_F(Sources, exports_are_readable_where_their_servers_socket_may_lie_and_on_the_loopback) {
  EXPECT_EQ(*paths_.resolve(at_socket(root_ / "snapshots/one")), at_socket(root_ / "snapshots/one"));
  EXPECT_EQ(*paths_.resolve(at_socket("vm/os.img")), at_socket(root_ / "store/vm/os.img"));
  EXPECT_EQ(*paths_.resolve("nbd://localhost:1/disk"), "nbd://localhost:1/disk");
  fs::create_symlink(root_ / "snapshots/one", root_ / "store/link");
  EXPECT_EQ(*paths_.resolve(at_socket("link")), at_socket(root_ / "snapshots/one")) << "where it leads";
}

TEST_F(Sources, exports_elsewhere_are_refused_however_they_are_spelled) {
  refused(at_socket(root_ / "outside/secret"));
  refused(at_socket("../outside/secret"));
  refused(at_socket("%2e%2e/outside/secret"));
  refused(at_socket("vm/..%2f../outside/secret"));
  fs::create_symlink(root_ / "outside/secret", root_ / "store/link");
  refused(at_socket("link"));
  refused(at_socket("link%00"), NbdErrc::bad_uri);
  refused(at_socket("vm/os.img&tls-psk-file=x"), NbdErrc::bad_uri);
  refused("nbds+unix:///disk?socket=vm/os.img", NbdErrc::tls);
  refused("nbd://192.0.2.1/disk", NbdErrc::not_loopback);
}

TEST_F(Sources, a_socket_that_is_not_there_is_a_server_that_may_come_back) {
  const auto found = paths_.resolve(at_socket(root_ / "snapshots/none.sock"));
  ASSERT_FALSE(found);
  EXPECT_EQ(found.error(), NbdErrc::cannot_connect);
  EXPECT_EQ(found.error().retry(), Retry::later);
  EXPECT_NE(found.error().cause().find("none.sock"), std::string::npos);
}

TEST_F(Sources, an_export_is_no_target) {
  for (const auto* uri : {"nbd://localhost/disk", "nbd+unix:///disk?socket=vm/os.img", "nbds://h/d"})
    EXPECT_EQ(paths_.store_name(uri).error(), NbdErrc::read_only) << uri;
}

TEST_F(Sources, target_names_are_relative_to_the_store) {
  EXPECT_EQ(*paths_.store_name("vm/os.img"), "vm/os.img");
  EXPECT_EQ(*paths_.store_name((root_ / "store/vm/new.img").string()), "vm/new.img");
  EXPECT_FALSE(paths_.store_name((root_ / "snapshots/one").string()));
  EXPECT_FALSE(paths_.store_name("../outside/secret"));
  EXPECT_FALSE(paths_.store_name((root_ / "store/../outside/secret").string()));
}

}  // namespace
}  // namespace backhaul

#include "base/process_lock.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <string>

#include "unit/dataplane/temporary_directory.h"

namespace backhaul {
namespace {

class ProcessLock : public ::testing::Test {
 protected:
  std::filesystem::path file() const { return directory_.path() / "lock"; }

  // A process that takes the lock and has a child with copies of its descriptors. Both wait for the end of the pipe
  // that they give; returns the holder.
  pid_t start_holder(int (&child_lives)[2]) {
    int ready[2];
    EXPECT_EQ(::pipe(ready), 0);
    EXPECT_EQ(::pipe(child_lives), 0);
    const pid_t holder = ::fork();
    if (holder == 0) {
      const auto lock = take_process_lock(file(), "held");
      if (!lock) ::_exit(1);
      if (::fork() == 0) {  // lives until the test closes its end of the pipe
        ::close(child_lives[1]);
        ::close(ready[1]);
        char none = 0;
        (void)!::read(child_lives[0], &none, 1);
        ::_exit(0);
      }
      (void)!::write(ready[1], "r", 1);
      ::pause();
    }
    ::close(ready[1]);
    ::close(child_lives[0]);
    char said = 0;
    EXPECT_EQ(::read(ready[0], &said, 1), 1);
    ::close(ready[0]);
    return holder;
  }

  TemporaryDirectory directory_;
};

TEST_F(ProcessLock, IsRefusedWithItsHolderWhileAnotherProcessHasIt) {
  int child_lives[2];
  const pid_t holder = start_holder(child_lives);
  const auto refused = take_process_lock(file(), "the store is in use");
  ASSERT_FALSE(refused);
  EXPECT_TRUE(refused.error().is(BaseErrc::invalid_argument));
  EXPECT_EQ(refused.error().cause(), "the store is in use (process " + std::to_string(holder) + ")");
  ::kill(holder, SIGKILL);
  ::waitpid(holder, nullptr, 0);
  ::close(child_lives[1]);
}

TEST_F(ProcessLock, EndsWithItsProcessThoughAChildHasTheDescriptor) {
  int child_lives[2];
  const pid_t holder = start_holder(child_lives);
  ::kill(holder, SIGKILL);
  ASSERT_EQ(::waitpid(holder, nullptr, 0), holder);
  EXPECT_TRUE(take_process_lock(file(), "held")) << "the child of a dead holder holds nothing";
  ::close(child_lives[1]);
}

TEST_F(ProcessLock, EndsWithItsDescriptor) {
  { EXPECT_TRUE(take_process_lock(file(), "held")); }
  const pid_t other = ::fork();
  if (other == 0) ::_exit(take_process_lock(file(), "held") ? 0 : 1);
  int status = 0;
  ASSERT_EQ(::waitpid(other, &status, 0), other);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

TEST_F(ProcessLock, NamesAFileThatCannotBeOpened) {
  const auto refused = take_process_lock(directory_.path() / "missing" / "lock", "held");
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().cause().find("missing/lock"), std::string::npos) << refused.error().to_string();
}

}  // namespace
}  // namespace backhaul

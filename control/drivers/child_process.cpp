#include "control/drivers/child_process.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>  // NOLINT(modernize-deprecated-headers): POSIX, not the C++ header
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <boost/json/serialize.hpp>

#include "base/unique_fd.h"
#include "control/model/control_error.h"

extern char** environ;

namespace backhaul {
namespace {

using SteadyClock = std::chrono::steady_clock;

struct Pipe {
  UniqueFd read, write;
};

Result<Pipe> make_pipe() {
  int fds[2];
  if (::pipe2(fds, O_CLOEXEC) != 0) return Error::from_errno(errno, "pipe");
  return Pipe{UniqueFd(fds[0]), UniqueFd(fds[1])};
}

// stdin is a socket so that writing to a program that has ended is an error, not a signal.
Result<Pipe> make_input() {
  int fds[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) != 0) return Error::from_errno(errno, "socketpair");
  return Pipe{UniqueFd(fds[0]), UniqueFd(fds[1])};
}

void append_bounded(std::string& text, const char* data, std::size_t size, std::size_t limit) {
  text.append(data, size);
  if (text.size() > limit) text.erase(0, text.size() - limit);
}

class Child {
 public:
  explicit Child(pid_t pid) : pid_(pid) {}
  ~Child() {
    if (pid_ > 0) kill_and_wait();
  }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  // Nothing while it runs.
  std::optional<int> poll_status() {
    int status = 0;
    if (::waitpid(pid_, &status, WNOHANG) != pid_) return std::nullopt;
    pid_ = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }
  void kill_and_wait() {
    ::kill(-pid_, SIGKILL);  // the whole process group: also what the child started
    while (::waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
    }
    pid_ = -1;
  }

 private:
  pid_t pid_;
};

// The child's environment: ours, overridden by `more`.
std::vector<std::string> child_environment(const Environment& more) {
  std::vector<std::string> variables;
  for (char** variable = environ; *variable != nullptr; ++variable) {
    const std::string_view text(*variable);
    if (more.find(std::string(text.substr(0, text.find('=')))) == more.end()) variables.emplace_back(text);
  }
  for (const auto& [name, value] : more) variables.push_back(fmt::format("{}={}", name, value));
  return variables;
}

std::vector<char*> pointers(const std::vector<std::string>& texts) {
  std::vector<char*> result;
  result.reserve(texts.size() + 1);
  for (const auto& text : texts) result.push_back(const_cast<char*>(text.c_str()));
  result.push_back(nullptr);
  return result;
}

// In the child, between vfork and exec: system calls only, our memory is shared. Returns only when exec failed.
int become(char* const* arguments, char* const* variables, const int (&files)[3], pid_t parent, int table_size) {
  for (int number = 0; number < 3; ++number)
    if (files[number] == number ? ::fcntl(number, F_SETFD, 0) < 0 : ::dup2(files[number], number) < 0) return errno;
  // The child inherits no other descriptor: a child that outlives us (a hypervisor with its VM) would hold our port and
  // our peers' connections.
  if (::close_range(3, ~0U, CLOSE_RANGE_CLOEXEC) != 0)
    for (int number = 3; number < table_size; ++number) ::fcntl(number, F_SETFD, FD_CLOEXEC);
  ::setpgid(0, 0);
  // The child ends with us: a call that outlived us would overlap with its repetition. The signal comes when the
  // calling thread ends, and that thread waits in run_child until the child is gone.
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != parent) ::_exit(127);
  ::signal(SIGPIPE, SIG_DFL);
  sigset_t none;
  sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  ::execvpe(arguments[0], arguments, variables);
  return errno;
}

// posix_spawn knows no parent-death signal, and fork would copy the buffers that io_uring has pinned.
Result<pid_t> spawn(const std::vector<std::string>& argv, const Environment& environment, int input, int output,
                    int errors) {
  const auto arguments = pointers(argv);
  const auto variables = child_environment(environment);
  const auto variable_pointers = pointers(variables);
  const int files[3] = {input, output, errors};
  BH_TRY(Pipe failure, make_pipe());
  const pid_t parent = ::getpid();
  const int table_size = ::getdtablesize();
  sigset_t all, before;
  sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, &before);  // no handler of ours may run in the child
  const pid_t pid = ::vfork();                    // NOLINT(clang-analyzer-security.insecureAPI.vfork)
  if (pid == 0) {
    const int number = become(arguments.data(), variable_pointers.data(), files, parent, table_size);
    (void)!::write(failure.write.get(), &number, sizeof number);
    ::_exit(127);
  }
  int failed = pid < 0 ? errno : 0;
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  // exec closes the pipe; a child that fails writes to it. Shared memory would not do: the thread sanitizer makes vfork
  // a fork.
  failure.write.reset();
  int number = 0;
  if (pid > 0 && ::read(failure.read.get(), &number, sizeof number) == sizeof number) failed = number;
  if (failed != 0) {
    if (pid > 0) ::waitpid(pid, nullptr, 0);
    return make_error(
        ControlErrc::driver_failed,
        fmt::format("{} cannot be started: {}", argv[0], std::error_code(failed, std::generic_category()).message()));
  }
  return pid;
}

}  // namespace

Result<ChildOutcome> run_child(const std::vector<std::string>& argv, std::string_view input,
                               std::chrono::milliseconds timeout, const Environment& environment) {
  if (argv.empty() || argv[0].empty()) return make_error(ControlErrc::driver_failed, "no command is given");
  BH_TRY(Pipe in, make_input());
  BH_TRY(Pipe out, make_pipe());
  BH_TRY(Pipe err, make_pipe());
  BH_TRY(pid_t pid, spawn(argv, environment, in.read.get(), out.write.get(), err.write.get()));
  Child child(pid);
  in.read.reset();
  out.write.reset();
  err.write.reset();
  ::fcntl(in.write.get(), F_SETFL, O_NONBLOCK);

  ChildOutcome outcome;
  std::optional<int> status;
  const auto deadline = SteadyClock::now() + timeout;
  // Ends when the program has ended and its output is read, even when a child of its own keeps the pipe open.
  while (!status || out.read) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - SteadyClock::now());
    if (left.count() <= 0)
      return make_error(ControlErrc::driver_timeout, fmt::format("{} after {} ms", argv[0], timeout.count()));
    if (in.write && input.empty()) in.write.reset();
    pollfd polls[3] = {{in.write.get(), POLLOUT, 0}, {out.read.get(), POLLIN, 0}, {err.read.get(), POLLIN, 0}};
    const int ready =
        ::poll(polls, 3, static_cast<int>(std::min<std::int64_t>(left.count(), status || !out.read ? 5 : 20)));
    if (polls[0].revents != 0) {
      const auto sent = ::send(in.write.get(), input.data(), input.size(), MSG_NOSIGNAL);
      if (sent > 0) input.remove_prefix(static_cast<std::size_t>(sent));
      if (sent < 0 && errno != EAGAIN && errno != EINTR) in.write.reset();  // the program does not want the rest
    }
    char buffer[16384];
    for (int i : {1, 2}) {
      if (polls[i].revents == 0) continue;
      UniqueFd& from = i == 1 ? out.read : err.read;
      const auto got = ::read(from.get(), buffer, sizeof buffer);
      if (got <= 0) {
        from.reset();
      } else if (i == 1) {
        outcome.output.append(buffer, static_cast<std::size_t>(got));
        if (outcome.output.size() > kMaxChildOutput)
          return make_error(ControlErrc::driver_protocol,
                            fmt::format("{} wrote more than {} bytes", argv[0], kMaxChildOutput));
      } else {
        append_bounded(outcome.errors, buffer, static_cast<std::size_t>(got), kMaxChildErrors);
      }
    }
    if (status && ready == 0) break;
    if (!status) status = child.poll_status();
  }
  outcome.exit_status = *status;
  return outcome;
}

Result<void> run_plan_command(const PlanAction& action, const boost::json::object& about) {
  BH_TRY(ChildOutcome outcome,
         run_child(action.command, boost::json::serialize(about) + "\n", std::chrono::seconds(action.timeout_s)));
  if (outcome.exit_status == 0) return {};
  return make_error(ControlErrc::action_failed,
                    fmt::format("{} ended with status {}: {}", action.command[0], outcome.exit_status, outcome.errors));
}

}  // namespace backhaul

// The program's commands. Each adds its subcommand to the parser; all share the way errors and results are printed.
#pragma once

#include <CLI/CLI.hpp>
#include <boost/json/object.hpp>
#include <functional>
#include <string>

#include "base/error.h"
#include "dataplane/target/target_store.h"
#include "transport/tls/tls_stream.h"

namespace backhaul {

// Exit codes (docs/OPERATIONS.md): 0 success, 1 the operation failed or was refused, 2 the command line or a file is
// wrong. With a job that was waited for: 3 it failed, 4 somebody cancelled it.
enum ExitCode { kExitOk = 0, kExitFailed = 1, kExitUsage = 2, kExitJobFailed = 3, kExitJobCancelled = 4 };

// What the chosen subcommand runs; its callback sets it.
using Action = std::function<int()>;

void add_pki_command(CLI::App& app, Action& action);
void add_host_command(CLI::App& app, Action& action);
void add_send_command(CLI::App& app, Action& action);
void add_cancel_command(CLI::App& app, Action& action);
void add_digest_command(CLI::App& app, Action& action);
void add_appliance_command(CLI::App& app, Action& action);
void add_item_command(CLI::App& app, Action& action);
void add_job_command(CLI::App& app, Action& action);
void add_plan_command(CLI::App& app, Action& action);
void add_token_command(CLI::App& app, Action& action);
void add_audit_command(CLI::App& app, Action& action);  // also `events`

// Prints the error: on stderr as text, and on stdout as {"error":{...}} when `json`. Returns the exit code.
int print_error(const Error& error, bool json);
// One JSON object on a line of stdout.
void print_json(const boost::json::object& object);

// The credentials' directory: `directory`, or its subdirectory `node` ("host", "appliance") when only that has a
// certificate (as `pki init` makes it). Empty: BACKHAUL_TLS, then /etc/backhaul/tls.
std::string tls_directory(const std::string& directory, const std::string& node);

// Parses the value of --tls-records.
Result<TlsRecords> read_tls_records(const std::string& text);

// The real queue, hashers, clock and randomness.
Result<DataplaneParts> real_parts();

std::string human_bytes(double bytes);
std::string human_seconds(double seconds);
std::string progress_bar(double done, double total);  // "[####....]  50%"
// Bytes with an optional suffix K, M, G, T (powers of 1024).
Result<std::uint64_t> parse_bytes(const std::string& text);

// A flag that SIGINT and SIGTERM set, which ends long operations soon; a second signal ends the program.
const std::atomic<bool>& stop_on_signals();

}  // namespace backhaul

// The command line's side of the control API (docs/http_api.md): connection, token, errors. One thread.
#pragma once

#include <CLI/CLI.hpp>
#include <boost/json.hpp>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "base/error.h"
#include "control/http/http.h"

namespace backhaul {

// The options of every API command. An option overrides the environment, which overrides the default.
struct ApiOptions {
  std::string api;         // https://HOST:PORT; BACKHAUL_API, https://localhost:8443
  std::string token_file;  // BACKHAUL_TOKEN holds the token itself
  std::string tls;         // directory with ca.crt; BACKHAUL_TLS, /etc/backhaul/tls
  std::string ca;          // the CA's certificate alone; overrides `tls`
  bool json = false;
};
void add_api_options(CLI::App& command, ApiOptions& options);

struct ApiAnswer {
  unsigned status = 0;
  boost::json::value body;  // null: none
  std::string status_path;  // of an asynchronous verb: path of its status; else empty
  std::string job() const;  // of an asynchronous verb: its job's id, the last part of status_path
};

class ApiClient {
 public:
  // Dials with the first call. Errors: invalid_argument (no token, not an API URL), those of the credentials.
  static Result<std::unique_ptr<ApiClient>> create(const ApiOptions& options);

  // `path` is below /v1, as "/replicationJobs/17". A status from 400 on is an error with the appliance's code, cause
  // and fix. GET is tried again for the patience while the appliance cannot be reached.
  Result<ApiAnswer> call(std::string_view method, std::string_view path, const boost::json::value& body = nullptr,
                         const HttpHeaders& headers = {});
  Result<boost::json::value> get(std::string_view path);
  // All pages of a list.
  Result<boost::json::array> list(std::string_view path);
  // Server-sent events until `event` says false or the stream ends.
  Result<void> events(const std::function<bool(std::string_view kind, std::string_view data)>& event);
  // How long call() tries a GET again; 0 until set.
  void set_patience(std::chrono::seconds patience) { patience_ = patience; }

 private:
  ApiClient(std::unique_ptr<HttpClient> client, std::string authorization);
  Result<ApiAnswer> call_target(std::string_view method, std::string_view target, const boost::json::value& body,
                                const HttpHeaders& headers);

  std::unique_ptr<HttpClient> client_;
  const std::string authorization_;
  std::chrono::seconds patience_{0};
};

// Percent-encodes a part of a path or query.
std::string url_encode(std::string_view text);
// invalid_argument when `id` cannot be the id of `what`, which stands in a path.
Result<void> check_id(std::string_view what, std::string_view id);

// Parts of an answer by JSON pointer ("/properties/state"); empty or 0 where it has none.
const boost::json::value* find_part(const boost::json::value& value, std::string_view pointer);
std::string text_part(const boost::json::value& value, std::string_view pointer);
double number_part(const boost::json::value& value, std::string_view pointer);
bool truth_part(const boost::json::value& value, std::string_view pointer);
const boost::json::array& array_part(const boost::json::value& value, std::string_view pointer);

}  // namespace backhaul

#include "transport/pki/pki.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstdio>
#include <fstream>

#include "unit/transport/tls/tls_fixture.h"

namespace backhaul::test {
namespace {

namespace fs = std::filesystem;

std::string read_text(const fs::path& path) {
  std::ifstream in(path);
  return {std::istreambuf_iterator<char>(in), {}};
}

// What a command prints; its exit status in `status`.
std::string run(const std::string& command, int& status) {
  std::FILE* pipe = ::popen((command + " 2>&1").c_str(), "r");
  std::string out;
  char bytes[1024];
  for (std::size_t count = 0; (count = std::fread(bytes, 1, sizeof bytes, pipe)) > 0;) out.append(bytes, count);
  status = ::pclose(pipe);
  return out;
}

class PkiTest : public ::testing::Test {
 protected:
  const fs::path& path() const { return directory_.path(); }
  std::vector<std::string> entries() const {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(path())) names.push_back(entry.path().filename());
    std::sort(names.begin(), names.end());
    return names;
  }
  TempDirectory directory_;
};

TEST_F(PkiTest, makes_a_ca_and_two_nodes_and_nothing_else) {
  ASSERT_TRUE(pki_init(path()));
  EXPECT_EQ(entries(), (std::vector<std::string>{"appliance", "ca.crt", "ca.key", "host"}));
  for (const char* key : {"ca.key", "appliance/node.key", "host/node.key"}) {
    struct stat facts {};
    ASSERT_EQ(::stat((path() / key).c_str(), &facts), 0);
    EXPECT_EQ(facts.st_mode & 07777, 0600U) << key;
  }
  EXPECT_EQ(read_text(path() / "host" / "ca.crt"), read_text(path() / "ca.crt"));
}

TEST_F(PkiTest, an_independent_tool_accepts_the_certificates) {
  ASSERT_TRUE(pki_init(path()));
  int status = 0;
  for (const char* node : {"appliance", "host"})
    for (const char* purpose : {"sslserver", "sslclient"}) {
      const auto out = run("openssl verify -x509_strict -purpose " + std::string(purpose) + " -CAfile " +
                               (path() / "ca.crt").string() + " " + (path() / node / "node.crt").string(),
                           status);
      EXPECT_EQ(status, 0) << out;
    }
  const auto ca = run("openssl x509 -noout -text -in " + (path() / "ca.crt").string(), status);
  EXPECT_NE(ca.find("CA:TRUE, pathlen:0"), std::string::npos) << ca;
  EXPECT_NE(ca.find("prime256v1"), std::string::npos);
  const auto node = run("openssl x509 -noout -text -in " + (path() / "host" / "node.crt").string(), status);
  for (const char* text :
       {"CA:FALSE", "Digital Signature", "TLS Web Server Authentication, TLS Web Client Authentication",
        "DNS:localhost", "IP Address:127.0.0.1", "IP Address:0:0:0:0:0:0:0:1"})
    EXPECT_NE(node.find(text), std::string::npos) << text << "\n" << node;
}

TEST_F(PkiTest, refuses_to_overwrite_anything) {
  ASSERT_TRUE(pki_init(path()));
  const auto before = read_text(path() / "ca.key");
  const auto again = pki_init(path());
  ASSERT_FALSE(again);
  EXPECT_EQ(again.error().symbol(), "io.exists");
  const auto issued = pki_issue(path(), {.name = "host", .alt_names = {"x"}});
  ASSERT_FALSE(issued);
  EXPECT_EQ(issued.error().symbol(), "io.exists");
  EXPECT_EQ(read_text(path() / "ca.key"), before);
  for (const char* name : {"ca.crt", "ca.key", "appliance", "host"}) {
    TempDirectory other;
    std::ofstream(other.path() / name) << "mine";
    EXPECT_FALSE(pki_init(other.path())) << name;
    EXPECT_EQ(read_text(other.path() / name), "mine");
    EXPECT_EQ(std::distance(fs::directory_iterator(other.path()), {}), 1) << "something was left behind";
  }
}

TEST_F(PkiTest, issues_a_node_and_shows_it) {
  ASSERT_TRUE(pki_init(path()));
  const std::vector<std::string> names{"web-1.example", "10.1.2.3", "2001:db8::5"};
  ASSERT_TRUE(pki_issue(path(), {.name = "web-1", .alt_names = names, .days = 30}));
  const auto shown = pki_show(path() / "web-1" / "node.crt");
  ASSERT_TRUE(shown) << shown.error().to_string();
  ASSERT_EQ(shown->size(), 1U);
  const auto& info = shown->front();
  EXPECT_EQ(info.subject, "CN=web-1");
  EXPECT_EQ(info.issuer, "CN=Backhaul CA");
  EXPECT_EQ(info.alt_names, names);
  EXPECT_FALSE(info.is_ca);
  EXPECT_TRUE(info.days_left == 29 || info.days_left == 30) << info.days_left;
  EXPECT_EQ(info.not_after.size(), std::string("2030-01-01T00:00:00Z").size());
  int status = 0;
  auto fingerprint = run("openssl x509 -noout -fingerprint -sha256 -in " + info.path, status);
  fingerprint.erase(std::remove(fingerprint.begin(), fingerprint.end(), ':'), fingerprint.end());
  std::transform(fingerprint.begin(), fingerprint.end(), fingerprint.begin(),
                 [](unsigned char c) { return std::tolower(c); });
  EXPECT_NE(fingerprint.find(info.fingerprint_sha256), std::string::npos) << fingerprint;
  EXPECT_EQ(info.fingerprint_sha256.size(), 64U);

  const auto all = pki_show(path());
  ASSERT_TRUE(all);
  EXPECT_EQ(all->size(), 1U + 3 * 2) << "the CA, and CA and node in each of three directories";
  EXPECT_EQ(std::count_if(all->begin(), all->end(), [](const auto& one) { return one.is_ca; }), 4);
}

TEST_F(PkiTest, refuses_names_that_are_none) {
  ASSERT_TRUE(pki_init(path()));
  const auto before = entries();
  for (const char* name : {"", "..", "../evil", "a/b", ".hidden", "a b", "-x", "*.example", "a\nb"})
    EXPECT_EQ(pki_issue(path(), {.name = name, .alt_names = {"x"}}).error(),
              make_error_code(BaseErrc::invalid_argument))
        << name;
  EXPECT_FALSE(pki_issue(path(), {.name = std::string(65, 'a'), .alt_names = {"x"}}));
  EXPECT_FALSE(pki_issue(path(), {.name = "n", .alt_names = {}}));
  EXPECT_FALSE(pki_issue(path(), {.name = "n", .alt_names = {"x,DNS:y"}}));
  EXPECT_FALSE(pki_issue(path(), {.name = "n", .alt_names = {"10.0.0.1/8"}}));
  EXPECT_FALSE(pki_issue(path(), {.name = "n", .alt_names = {"x"}, .days = 0}));
  EXPECT_EQ(entries(), before);
}

TEST_F(PkiTest, names_the_file_that_is_missing_or_wrong) {
  const auto missing = pki_issue(path(), {.name = "n", .alt_names = {"x"}});
  ASSERT_FALSE(missing);
  EXPECT_NE(missing.error().cause().find("ca.crt"), std::string::npos) << missing.error().cause();
  EXPECT_EQ(missing.error().symbol(), "io.not_found");
  TempDirectory other;
  ASSERT_TRUE(pki_init(path()));
  ASSERT_TRUE(pki_init(other.path()));
  fs::copy_file(other.path() / "ca.key", path() / "ca.key", fs::copy_options::overwrite_existing);
  const auto mismatch = pki_issue(path(), {.name = "n", .alt_names = {"x"}});
  ASSERT_FALSE(mismatch);
  EXPECT_NE(mismatch.error().cause().find("does not belong"), std::string::npos) << mismatch.error().cause();
  EXPECT_FALSE(pki_show(path() / "nothing.crt"));
}

}  // namespace
}  // namespace backhaul::test

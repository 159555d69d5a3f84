#include <gtest/gtest.h>

#include "dataplane/nbd/nbd.h"

namespace backhaul {
namespace {

TEST(NbdUri, OnlyItsSchemesAreNbd) {
  for (const auto* uri : {"nbd://localhost", "nbd+unix:///d?socket=/s", "nbds://h/d", "nbds+unix:///d?socket=/s"})
    EXPECT_TRUE(is_nbd_uri(uri)) << uri;
  for (const auto* path :
       {"/images/d.raw", "nbd", "nbd:d", "./nbd://localhost", "nbd+ssh://h/d", "NBD://localhost", ""})
    EXPECT_FALSE(is_nbd_uri(path)) << path;
}

TEST(NbdUri, SocketsAndTheLoopbackAreTaken) {
  for (const auto* uri : {"nbd://localhost", "nbd://localhost:10809/", "nbd://127.0.0.1:1/a%20b", "nbd://127.1.2.3",
                          "nbd://[::1]:10809/d", "nbd+unix:///?socket=/run/s", "nbd+unix:///d/e?socket=/run/s"})
    EXPECT_TRUE(check_nbd_uri(uri)) << uri;
}

TEST(NbdUri, OtherMachinesAreRefused) {
  for (const auto* uri : {"nbd://", "nbd:///d", "nbd://10.0.0.1/d", "nbd://[::2]/d", "nbd://[::1", "nbd://[",
                          "nbd://127.example.org/d", "nbd://localhost.example.org/d", "nbd://:10809/d"})
    EXPECT_EQ(check_nbd_uri(uri).error().code(), NbdErrc::not_loopback) << uri;
  EXPECT_EQ(check_nbd_uri("nbds://localhost/d").error().code(), NbdErrc::tls);
  EXPECT_EQ(check_nbd_uri("nbds+unix:///d?socket=/s").error().code(), NbdErrc::tls);
}

TEST(NbdUri, WhatMayHoldASecretIsRefusedAndNotRepeated) {
  for (const auto* uri :
       {"nbd://hidden@localhost/d", "nbd://u:hidden@127.0.0.1/d", "nbd+unix://hidden@/d?socket=/s", "nbd+unix:///d",
        "nbd+unix:///d?socket=", "nbd+unix:///d?socket=/s&tls-psk-file=hidden", "nbd+unix:///d?socket=/s;a=hidden",
        "nbd+unix:///d?tls-psk-file=hidden", "nbd://localhost/d?tls-certificates=hidden", "nbd+unix://h/d?socket=/s",
        "nbd+unix:///a b?socket=/s", "nbd+unix:///d?socket=/s#hidden", "/hidden"}) {
    const auto checked = check_nbd_uri(uri);
    ASSERT_FALSE(checked) << uri;
    EXPECT_EQ(checked.error().code(), NbdErrc::bad_uri) << uri;
    EXPECT_EQ(checked.error().to_string().find("hidden"), std::string::npos) << uri;
  }
}

TEST(NbdUri, ASocketsPathIsReadAndReplaced) {
  EXPECT_EQ(*nbd_socket_of("nbd+unix:///d?socket=/run/a%20b%2Fc.sock"), "/run/a b/c.sock");
  EXPECT_EQ(*nbd_socket_of("nbd+unix:///?socket=s+1"), "s+1");
  EXPECT_EQ(*nbd_socket_of("nbd://localhost/d"), "");
  EXPECT_EQ(with_nbd_socket("nbd+unix:///a%20b?socket=/link", "/r\xc3\xbcn/a b&c%?#=.sock"),
            "nbd+unix:///a%20b?socket=/r%C3%BCn/a%20b%26c%25%3F%23%3D.sock");
  for (const auto* socket : {"/run/%", "/run/%4", "/run/%zz", "/run/%4z", "/run/%00", "/run/%0a", "/run/%-1"})
    EXPECT_EQ(nbd_socket_of("nbd+unix:///d?socket=" + std::string(socket)).error(), NbdErrc::bad_uri) << socket;
  EXPECT_EQ(nbd_socket_of("nbds+unix:///d?socket=/s").error(), NbdErrc::tls);
}

}  // namespace
}  // namespace backhaul

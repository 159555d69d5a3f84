#include "checksum/gmac_hasher.h"

#include <fmt/format.h>
#include <openssl/crypto.h>

#include <cassert>

#include "checksum/ipsec_mb.h"

namespace backhaul {
namespace {

constexpr std::array<std::uint8_t, 12> kNonce{};

class GmacHasher final : public BlockHasher {
 public:
  explicit GmacHasher(const GmacKey& key) : description_(fmt::format("GMAC (libipsec-mb {})", imb_get_version_str())) {
    IMB_AES128_GCM_PRE(ipsec_mb(), key.data(), &key_);
  }
  GmacHasher(const GmacHasher&) = delete;
  GmacHasher& operator=(const GmacHasher&) = delete;
  ~GmacHasher() override {
    OPENSSL_cleanse(&key_, sizeof key_);
    OPENSSL_cleanse(&work_, sizeof work_);
  }

  std::string_view description() const noexcept override { return description_; }

  void digest(std::span<const Bytes> blocks, std::span<BlockDigest> digests) override {
    assert(blocks.size() == digests.size());
    const IMB_MGR* const mb = ipsec_mb();
    for (std::size_t i = 0; i < blocks.size(); ++i) {
      assert(blocks[i].size() <= kBlockSize);
      IMB_AES128_GMAC_INIT(mb, &key_, &work_, kNonce.data(), kNonce.size());
      if (!blocks[i].empty())
        IMB_AES128_GMAC_UPDATE(mb, &key_, &work_, reinterpret_cast<const std::uint8_t*>(blocks[i].data()),
                               blocks[i].size());
      IMB_AES128_GMAC_FINALIZE(mb, &key_, &work_, reinterpret_cast<std::uint8_t*>(digests[i].bytes.data()),
                               sizeof(BlockDigest));
    }
  }

 private:
  std::string description_;
  ExpandedGcmKey key_{};
  gcm_context_data work_{};
};

}  // namespace

bool gmac_available() noexcept { return ipsec_mb() != nullptr; }

Result<std::unique_ptr<BlockHasher>> make_gmac_hasher(const GmacKey& key) {
  if (!gmac_available()) return Error(BaseErrc::unsupported, "this CPU lacks AES and carry-less multiplication");
  return std::unique_ptr<BlockHasher>(std::make_unique<GmacHasher>(key));
}

}  // namespace backhaul

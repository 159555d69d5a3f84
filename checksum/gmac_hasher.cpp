#include "checksum/gmac_hasher.h"

#include <fmt/format.h>
#include <intel-ipsec-mb.h>
#include <openssl/crypto.h>

#include <cassert>

#include "checksum/multi_buffer_hasher.h"

namespace backhaul {
namespace {

constexpr std::array<std::uint8_t, 12> kNonce{};

struct FreeManager {
  void operator()(IMB_MGR* manager) const noexcept { free_mb_mgr(manager); }
};
using Manager = std::unique_ptr<IMB_MGR, FreeManager>;

class GmacHasher final : public BlockHasher {
 public:
  GmacHasher(Manager manager, const GmacKey& key)
      : manager_(std::move(manager)), description_(fmt::format("GMAC (libipsec-mb {})", imb_get_version_str())) {
    IMB_AES128_GCM_PRE(manager_.get(), key.data(), &key_);
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
    IMB_MGR* const mb = manager_.get();
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
  Manager manager_;
  std::string description_;
  gcm_key_data key_{};
  gcm_context_data work_{};
};

}  // namespace

bool gmac_available() noexcept {
  static const bool available = detect_cpu_features().multi_buffer;
  return available;
}

Result<std::unique_ptr<BlockHasher>> make_gmac_hasher(const GmacKey& key) {
  if (!gmac_available()) return Error(BaseErrc::unsupported, "this CPU lacks AES and carry-less multiplication");
  Manager manager(alloc_mb_mgr(0));
  if (manager == nullptr) return Error(BaseErrc::unsupported, "libipsec-mb could not allocate its state");
  init_mb_mgr_auto(manager.get(), nullptr);
  if (const int error = imb_get_errno(manager.get()); error != 0)
    return Error(BaseErrc::unsupported, fmt::format("libipsec-mb did not start: {}", imb_get_strerror(error)));
  return std::unique_ptr<BlockHasher>(std::make_unique<GmacHasher>(std::move(manager), key));
}

}  // namespace backhaul

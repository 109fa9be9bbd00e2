#include "ndp/system/domain.h"

#include <memory>
#include <mutex>
#include <shared_mutex>
#include <unordered_map>

#include <pthread.h>

namespace trimoe::ndp {
namespace {

struct Table {
  std::shared_mutex mutex;
  std::unordered_map<int64_t, Domain> domains;
};

Table& table() {
  // Never destroyed: what fleets keep may be Python's, which is gone by then.
  static Table* const instance = [] {
    // As the registry of layers does: the child must not wait for a thread that was not forked.
    ::pthread_atfork([] { table().mutex.lock(); }, [] { table().mutex.unlock(); },
                     [] { std::construct_at(&table().mutex); });
    return new Table;
  }();
  return *instance;
}

}  // namespace

void attach(int64_t layer, Domain domain) {
  const std::unique_lock lock(table().mutex);
  const auto [found, is_new] = table().domains.emplace(layer, std::move(domain));
  check(is_new, "a layer without DIMMs", layer, "detach() first");
}

void detach(int64_t layer) {
  std::shared_ptr<Fleet> fleet;
  {
    const std::unique_lock lock(table().mutex);
    const auto found = table().domains.find(layer);
    if (found == table().domains.end()) return;
    fleet = std::move(found->second.fleet);
    table().domains.erase(found);
  }
  fleet->remove_all(expert_key(layer, 0), expert_key(layer, kLayerKeys));
}

Domain domain_of(int64_t layer) {
  const std::shared_lock lock(table().mutex);
  const auto found = table().domains.find(layer);
  return found == table().domains.end() ? Domain() : found->second;
}

}  // namespace trimoe::ndp

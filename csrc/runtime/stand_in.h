// In place of a domain that this machine lacks: the CPU computes its experts where they lie in the layer, so
// that a plan made for another machine runs to the same bits. What the domain would take is not its to say.
#pragma once

#include "runtime/domain.h"

namespace trimoe::runtime {

class StandIn final : public Domain {
 public:
  std::unique_ptr<Ticket> submit(const Batch& batch) override { return std::make_unique<Lent>(batch); }

 private:
  class Lent final : public Ticket {
   public:
    explicit Lent(const Batch& batch) : batch_(batch) {}
    void wait() override {}
    void lend(std::vector<cpu::HostExpert>& to) const override {
      for (const Share& one : batch_.experts) to.push_back({one, batch_.layer.expert(one.index)});
    }
    Time time_of(int32_t) const override { return {Kind::kModelled, 0, 0}; }

   private:
    const Batch batch_;
  };
};

}  // namespace trimoe::runtime

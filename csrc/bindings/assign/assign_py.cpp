// Module trimoe._assign: TriMoE's decision about one layer.
#include "bindings/assign/assign_py.h"

#include <algorithm>
#include <utility>

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "assign/planner.h"
#include "bindings/errors_py.h"
#include "common/domain_code.h"
#include "common/error.h"

namespace trimoe::assign {
namespace {

constexpr int kInput = py::array::c_style | py::array::forcecast;

template <typename T>
std::span<const T> all_of(const py::array_t<T, kInput>& values) {
  check(values.ndim() == 1, "an array of one dimension", values.ndim(), "[E]");
  return {values.data(), static_cast<size_t>(values.size())};
}

struct Decision {
  py::array_t<int32_t> domain;
  py::tuple order;
  py::tuple fetch;
};

// Of a tuple that nobody else has seen: without the checks of an assignment, which take longer than the
// numbers.
void set_int(const py::tuple& target, int at, int value) {
  PyTuple_SET_ITEM(target.ptr(), at, PyLong_FromLong(value));
}

Decision as_domains(const Planner& planner, const LayerView& view) {
  const Problem& problem = planner.problem();
  Decision decision{py::array_t<int32_t>(static_cast<py::ssize_t>(view.counts.size())),
                    py::tuple(static_cast<size_t>(problem.size())), py::tuple()};
  int32_t* domain = decision.domain.mutable_data();
  std::fill_n(domain, view.counts.size(), kIdleDomain);
  std::vector<int> fetch;
  for (int i = 0; i < problem.size(); ++i) {
    const int one = problem.expert(i);
    const auto at = static_cast<size_t>(one);
    const int option = planner.assignment().of(i);
    domain[at] = option < kFirstDimmOption ? option : kFirstDimmDomain + problem.option(i, option).dimm;
    if (option == kGpuOption && !view.resident[at]) fetch.push_back(one);
    set_int(decision.order, i, one);
  }
  decision.fetch = py::tuple(fetch.size());
  for (size_t k = 0; k < fetch.size(); ++k) set_int(decision.fetch, static_cast<int>(k), fetch[k]);
  return decision;
}

// (domain [E], order, experts to fetch), or None where a number of tokens is not in the tables.
py::object decide(Planner& planner, const py::array_t<int64_t, kInput>& counts,
                  const py::array_t<bool, kInput>& resident, const py::array_t<int16_t, kInput>& layout) {
  const auto flags = all_of(resident);
  const LayerView view{
      all_of(counts), {reinterpret_cast<const uint8_t*>(flags.data()), flags.size()}, all_of(layout)};
  if (!planner.decide(view)) return py::none();
  const Decision decision = as_domains(planner, view);
  return py::make_tuple(decision.domain, decision.order, decision.fetch);
}

}  // namespace

PYBIND11_MODULE(_assign, m) {
  translate_errors();
  m.attr("SPLIT") = kSplitDomain;
  m.attr("IDLE") = kIdleDomain;
  m.attr("CPU") = kCpuDomain;
  m.attr("GPU") = kGpuDomain;
  m.attr("FIRST_DIMM") = kFirstDimmDomain;
  m.attr("STRIPED") = kStripedLayout;
  clock::bind_clock(m);
  py::class_<Planner>(m, "Planner")
      .def(py::init([](int resources, int gpu, int cpu, int link, std::vector<int> dimm,
                       std::vector<int> channel, bool with_cpu, int striped_on_dimm_up_to, bool greedy,
                       int rounds, int pairs, float gain, int search_up_to, int search_nodes) {
             return Planner({.resources = resources,
                             .gpu = gpu,
                             .cpu = cpu,
                             .link = link,
                             .dimm = std::move(dimm),
                             .channel = std::move(channel)},
                            {.choices = {.cpu = with_cpu,
                                         .striped_on_dimm_up_to = striped_on_dimm_up_to,
                                         .more_dimms_up_to = search_up_to},
                             .greedy = greedy,
                             .refine = {.rounds = rounds, .pairs = pairs, .gain = gain},
                             .search_up_to = search_up_to,
                             .search_nodes = search_nodes});
           }),
           py::kw_only(), py::arg("resources"), py::arg("gpu"), py::arg("cpu"), py::arg("link"),
           py::arg("dimm"), py::arg("channel"), py::arg("with_cpu"), py::arg("striped_on_dimm_up_to"),
           py::arg("greedy"), py::arg("rounds"), py::arg("pairs"), py::arg("gain"), py::arg("search_up_to"),
           py::arg("search_nodes"))
      .def(
          "set_base",
          [](Planner& self, int domain, int layout, const py::array_t<float, kInput>& load) {
            self.costs().set_base(domain, layout, all_of(load));
          },
          py::arg("domain"), py::arg("layout"), py::arg("load"))
      .def(
          "set_tokens",
          [](Planner& self, int64_t tokens, float gpu_ns, float cpu_striped_ns, float cpu_localized_ns,
             float dimm_ns, float channel_ns, float striped_dimm_ns, float striped_channel_ns, float link_ns,
             float other_dimm_ns) {
            self.costs().set_tokens(tokens, {.gpu_ns = gpu_ns,
                                             .cpu_striped_ns = cpu_striped_ns,
                                             .cpu_localized_ns = cpu_localized_ns,
                                             .dimm_ns = dimm_ns,
                                             .channel_ns = channel_ns,
                                             .striped_dimm_ns = striped_dimm_ns,
                                             .striped_channel_ns = striped_channel_ns,
                                             .link_ns = link_ns,
                                             .other_dimm_ns = other_dimm_ns});
          },
          py::arg("tokens"), py::kw_only(), py::arg("gpu_ns"), py::arg("cpu_striped_ns"),
          py::arg("cpu_localized_ns"), py::arg("dimm_ns"), py::arg("channel_ns"), py::arg("striped_dimm_ns"),
          py::arg("striped_channel_ns"), py::arg("link_ns"), py::arg("other_dimm_ns"))
      .def(
          "knows", [](Planner& self, int64_t tokens) { return self.costs().knows(tokens); },
          py::arg("tokens"))
      .def("decide", &decide, py::arg("counts"), py::arg("resident"), py::arg("layout"))
      .def_property_readonly("makespan_ns", [](const Planner& self) { return self.assignment().peak; })
      .def_property_readonly("rounds", &Planner::rounds)
      .def_property_readonly("loads_ns", [](const Planner& self) {
        const auto& load = self.assignment().load;
        return py::array_t<float>(static_cast<py::ssize_t>(load.size()), load.data());
      });
}

}  // namespace trimoe::assign

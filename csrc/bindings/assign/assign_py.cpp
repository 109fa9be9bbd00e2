// Module trimoe._assign: TriMoE's decision about one layer.
#include "bindings/assign/assign_py.h"

#include <algorithm>
#include <array>
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
    domain[at] = option == kGpuOption   ? kGpuDomain
                 : option == kCpuOption ? kCpuDomain
                                        : kFirstDimmDomain + problem.option(i, option).dimm;
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
  clock::bind_clock(m);
  py::class_<Planner>(m, "Planner")
      .def(py::init([](int resources, int gpu, int cpu, int link, std::vector<int> dimm,
                       std::vector<int> channel, bool with_cpu, int striped_on_dimm_up_to, bool greedy,
                       int rounds, int pairs, float gain, int search_up_to, int search_nodes) {
             return Planner({resources, gpu, cpu, link, std::move(dimm), std::move(channel)},
                            {{with_cpu, striped_on_dimm_up_to, search_up_to},
                             greedy,
                             {rounds, pairs, gain},
                             search_up_to,
                             search_nodes});
           }),
           py::arg("resources"), py::arg("gpu"), py::arg("cpu"), py::arg("link"), py::arg("dimm"),
           py::arg("channel"), py::kw_only(), py::arg("with_cpu"), py::arg("striped_on_dimm_up_to"),
           py::arg("greedy"), py::arg("rounds"), py::arg("pairs"), py::arg("gain"), py::arg("search_up_to"),
           py::arg("search_nodes"))
      .def(
          "set_base",
          [](Planner& self, int option, int layout, const py::array_t<float, kInput>& row) {
            self.costs().set_base(option, layout, all_of(row));
          },
          py::arg("option"), py::arg("layout"), py::arg("row"))
      .def(
          "set_tokens",
          [](Planner& self, int64_t tokens, const std::array<float, 9>& ns) {
            self.costs().set_tokens(tokens, {ns[0], ns[1], ns[2], ns[3], ns[4], ns[5], ns[6], ns[7], ns[8]});
          },
          py::arg("tokens"), py::arg("ns"))
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

# The table entry "onednn", an oracle and a baseline: see csrc/cpu/onednn. With TRIMOE_ONEDNN the core has it;
# else, for tests of the package as it ships, a twin of the core does: target trimoe_core_onednn, built with
# the test programs from the same objects, to be named in LD_PRELOAD.
cmake_path(GET Python_EXECUTABLE PARENT_PATH python_bin)
find_package(dnnl 3 CONFIG QUIET HINTS ${python_bin}/..)  # where the wheel has its files
find_package(OpenMP QUIET COMPONENTS CXX)
if(NOT dnnl_FOUND OR NOT OpenMP_CXX_FOUND)
  set(missing "expected oneDNN 3 and OpenMP for the entry onednn; got '${dnnl_DIR}' and '${OpenMP_CXX_FLAGS}'; "
              "try pip install onednn-devel-cpu-gomp==2023.2.0")
  if(TRIMOE_ONEDNN)
    message(FATAL_ERROR ${missing})
  endif()
  message(STATUS ${missing})
  return()
endif()

set(ONEDNN_SOURCES csrc/cpu/onednn/kernels.cpp csrc/cpu/onednn/matmul.cpp)
if(TRIMOE_ONEDNN)
  set(onednn_core trimoe_core)
  target_sources(trimoe_core PRIVATE ${ONEDNN_SOURCES})
else()
  set(onednn_core trimoe_core_onednn)
  get_target_property(kernels trimoe_core SOURCES)
  list(FILTER kernels INCLUDE REGEX TARGET_OBJECTS)
  add_library(trimoe_core_onednn SHARED EXCLUDE_FROM_ALL csrc/cpu/dispatch/kernel_table.cpp ${ONEDNN_SOURCES} ${kernels}
    $<FILTER:$<TARGET_OBJECTS:trimoe_core>,EXCLUDE,kernel_table>)
  set_target_properties(trimoe_core_onednn PROPERTIES OUTPUT_NAME trimoe_core CXX_VISIBILITY_PRESET default
    LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/onednn)
  add_dependencies(test_programs trimoe_core_onednn)
endif()
target_compile_definitions(${onednn_core} PRIVATE TRIMOE_ONEDNN)
target_link_libraries(${onednn_core} PRIVATE DNNL::dnnl OpenMP::OpenMP_CXX Threads::Threads)
# oneDNN is found where it was linked, in the environment that the wheel is installed in.
set_target_properties(${onednn_core} PROPERTIES INSTALL_RPATH_USE_LINK_PATH ON)

# What distributions build with; tests/test_hardening.py looks for it in every library.
add_compile_options(-fstack-protector-strong)
# Needs an optimised build; the sanitizers check the same calls themselves.
if(NOT CMAKE_BUILD_TYPE STREQUAL "Debug" AND NOT CMAKE_CXX_FLAGS MATCHES "-fsanitize")
  add_compile_options(-U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2)
endif()
add_link_options(-Wl,-z,relro -Wl,-z,now -Wl,-z,noexecstack)

std = "luajit"
max_line_length = 120
exclude_files = { "lua/penstock.d.lua" }
-- The library replaces parts of the standard libraries in the VMs of policies.
files["lua/penstock/init.lua"] = { globals = { "string", "coroutine", "math" } }
files["lua/penstock/sandbox.lua"] = { ignore = { "212/G" } }
files["tests/**/*_spec.lua"] = { std = "+busted" }

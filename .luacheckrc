std = "luajit"
max_line_length = 120
exclude_files = { "lua/penstock.d.lua", "lua/penstock.test.d.lua", "lua/penstock.ngx.d.lua",
  "lua/penstock.policy.d.lua" }
-- The library replaces parts of the standard libraries in the VMs of policies.
files["lua/penstock/init.lua"] = { globals = { "string", "coroutine", "math" } }
files["lua/penstock/virtual_time.lua"] = { ignore = { "122/os", "212/os", "431/os" } }
files["lua/penstock/sandbox.lua"] = { ignore = { "212/G" } }
files["tests/**/*_spec.lua"] = { std = "+busted" }
files["examples/*_spec.lua"] = { std = "+busted" }
-- One destination a line.
files["examples/proxy-chain.lua"] = { max_line_length = 121 }
-- Arguments that an example names for the sake of its reader.
files["examples/flaky-db.lua"] = { ignore = { "212/conn" } }

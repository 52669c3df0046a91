-- The watchdog names the hook that holds up its worker. Each policy is held until the test has read the log.
local lfs = require "lfs"
local e2e = require "tests.e2e.support.case"
local case = e2e.case

-- A policy whose hook, on line 3, stays until the file `gate` is there.
local function start(t, hook, wait, args)
  local gate = t:folder() .. "/gate"
  local server = t:listen()
  local path = t:file("policy.lua", ([[local gate = %q
    return {
      %s = function(conn)
        if conn.seq == 1 then %s end
      end }]]):format(gate, hook, wait))
  local argv = { "--unsafe-lua", "-p", path }
  for _, word in ipairs(args or {}) do argv[#argv + 1] = word end
  argv[#argv + 1] = "127.0.0.1:0"
  argv[#argv + 1] = server.address
  local p = t:penstock(argv)
  return p, server, function() t:file("gate", "open") end
end

local spin = 'local open = io.open while true do local f = open(gate) if f then f:close() break end end'
local block = 'os.execute("while ! test -e " .. gate .. "; do sleep 0.05; done")'

describe("watchdog:", function()
  for name, how in pairs {
    ["a compiled loop that cannot be interrupted"] = { spin, { "--jit" } },
    ["a C function that does not return, without --jit"] = { block },
  } do
    case(name .. " is told with its worker, connection, hook and line, and all goes on after it", function(t)
      t:expect_error "worker 0 has been in one connect hook"
      local p, server, open = start(t, "connect", how[1], how[2])
      local client = t:connect(p)
      assert.is_truthy(p:log "%[conn 1%] worker 0 has been in one (connect hook) for more than %d s.*policy.lua:3%)")
      assert.is_nil(lfs.attributes(t:folder() .. "/gate"))
      open()
      local upstream = t:accept(server)
      client:send "x"
      upstream:expect "x"
      t:expect_echo(p, server)
    end)
  end

  case("the other workers serve, and are not named", function(t)
    t:expect_error "worker %d has been in one accept hook"
    local p, server, open = start(t, "accept", spin, { "--jit", "--workers", "2", "--drain-timeout", "0" })
    t:connect(p)
    p:log "worker (%d) has been in one accept hook"
    for _ = 1, 40 do t:connect(p) end -- shared out by the kernel: some come to the other worker
    t:accept(server)
    assert.is_nil(lfs.attributes(t:folder() .. "/gate"))
    open()
    for _ = 2, 41 do t:accept(server) end
    p:stop()
    local _, told = p.err:gsub("has been in one", "")
    assert.is_true(told >= 1)
    assert.is_falsy(p.err:find "worker 0 has" and p.err:find "worker 1 has")
  end)
end)

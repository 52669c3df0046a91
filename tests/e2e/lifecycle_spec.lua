-- What a version of the script does of its own: at its start, at a reload, by timers, and at its end.
local e2e = require "tests.e2e.support.case"
local case = e2e.case

local function write(t, text, ...)
  return t:file("penstock.lua", 'local ps = require "penstock"\n' .. text:format(...))
end

local function version(t, v, server)
  return write(t, [[
    local v = %q
    ps.on_start(function() ps.log.info("start " .. v) end)
    ps.on_reload(function() ps.log.info("reload " .. v) end)
    ps.on_stop(function() ps.log.info("stop " .. v) ps.sleep(0.05) ps.log.info("ended " .. v) end)
    ps.every(0.02, function() ps.log.info("tick " .. v) end)
    ps.listen { bind = "127.0.0.1:0", to = %q }
  ]], v, server.address)
end

describe("a version of the script:", function()
  case("on_start and timers run once it serves, on_stop runs at TERM and may wait", function(t)
    local p = t:penstock { "run", version(t, "one", t:listen()) }
    p:log "(start one)"
    p:log "(tick one)"
    p:signal "TERM"
    p:expect_exit(0)
    assert.is_nil(p.err:find "reload one")
    assert.is_truthy(p.err:find "stop one.*ended one")
  end)

  case("a reload ends the timers of the old version, runs its on_stop and the new one's on_reload", function(t)
    local server = t:listen()
    local p = t:penstock { "run", version(t, "one", server) }
    local client, upstream = t:expect_echo(p, server) -- keeps the old version alive
    version(t, "two", server)
    p:signal "HUP"
    p:log "(reload two)"
    p:log "(ended one)"
    local from = #p.err + 1
    p:log("(tick two)", from)
    p:log("(tick two)", select(2, p.err:find("tick two", from)) + 1)
    assert.is_nil(p.err:find("tick one", from))
    client:finish()
    upstream:finish()
    client:expect_eof()
  end)

  case("an on_stop function that fails is logged, and the next one runs", function(t)
    t:expect_error "script error in the ps.on_stop function"
    local p = t:penstock { "run", write(t, [[
      ps.on_stop(function() error "boom" end)
      ps.on_stop(function() ps.log.info("second") end)
      ps.listen { bind = "127.0.0.1:0", to = %q }
    ]], t:listen().address) }
    p:signal "TERM"
    p:expect_exit(0)
    assert.is_truthy(p.err:find "boom")
    assert.is_truthy(p.err:find "second")
  end)

  case("a timer that fails is logged and runs again", function(t)
    t:expect_error "script error in the timer"
    local p = t:penstock { "run", write(t, [[
      local n = 0
      ps.every(0.01, function() n = n + 1 if n == 1 then error "boom" end ps.log.info("run %%d", n) end)
      ps.listen { bind = "127.0.0.1:0", to = %q }
    ]], t:listen().address) }
    p:log "(run 3)"
  end)
end)

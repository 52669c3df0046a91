-- What operators and their programs read: access lines, levels, formats, files.
local cjson = require "cjson"
local e2e = require "tests.e2e.support.case"
local case, sys = e2e.case, e2e.sys

local function once(t, p, server)
  local client, upstream = t:expect_echo(p, server)
  client:finish()
  upstream:expect_eof()
  upstream:finish()
  client:expect_eof()
  return client
end

local timestamp = "^%d%d%d%d%-%d%d%-%d%dT%d%d:%d%d:%d%d%.%d%d%dZ$"

describe("access lines:", function()
  case("one line tells all of a connection, as text", function(t)
    local server = t:listen()
    local p = t:penstock { "127.0.0.1:0", server.address }
    local client = once(t, p, server)
    local line = p:expect_end {
      id = 1, listener = p.address, client = client.own, upstream = server.address, up = 4, down = 4,
      reason = "eof", side = "client", detail = "-",
    }
    assert.is_number(line.duration_ms)
    assert.is_number(line.connect_ms)
    local text = p.err:match "[^\n]+ access [^\n]+"
    assert.matches(timestamp, text:match "^%S+")
    local keys = {}
    for key in text:gmatch " ([%w_]+)=" do keys[#keys + 1] = key end
    assert.same({
      "id", "listener", "client", "upstream", "up", "down", "duration_ms", "connect_ms", "reason", "side", "detail",
    }, keys)
  end)

  case("the same as JSON, with tags, and hostile text cannot break it", function(t)
    local server = t:listen()
    local policy = t:file("tags.lua", [[return { accept = function(conn)
      conn:tag("plain", "word")
      conn:tag("nasty", 'a"b\\c\nd\27[31m\0\255 é')
      conn.log.warn("from %s", 'x"\n{"level":"error"}')
    end }]])
    local p = t:penstock { "--log-format", "json", "-p", policy, "127.0.0.1:0", server.address }
    once(t, p, server)
    assert.is_truthy(sys.wait_until(function() return p.err:find '"level":"access"' end))
    p:stop()
    local access, warn
    for text in p.err:gmatch "[^\n]+" do
      local line = cjson.decode(text)
      assert.matches(timestamp, line.time)
      if line.level == "access" then access = line end
      if line.level == "warn" then warn = line end
    end
    assert.same({ 1, 4, 4, "eof", "client", "-" }, {
      access.id, access.up, access.down, access.reason, access.side, access.detail,
    })
    assert.is_number(access.connect_ms)
    assert.equal("word", access.tags.plain)
    assert.matches('^a"b\\c\nd\27%[31m', access.tags.nasty)
    assert.equal('from x"\n{"level":"error"}', warn.msg)
    assert.equal(1, warn.conn)
  end)

  case("a connection that reached no upstream has connect_ms null in JSON", function(t)
    local p = t:penstock { "--log-format", "json", "127.0.0.1:0", t:refusing().address }
    t:connect(p):expect_reset()
    local text = p:log "([^\n]+\"level\":\"access\"[^\n]+)"
    assert.equal(cjson.null, cjson.decode(text).connect_ms)
  end)

  case("tags in text are quoted, and hostile ones stay on one line", function(t)
    local server = t:listen()
    local policy = t:file("tags.lua", [[return { accept = function(conn)
      conn:tag("one", 1)
      conn:tag("two", 'x" reason=eof\n2026 error forged')
      conn:tag("one", "again")
    end }]])
    local p = t:penstock { "-p", policy, "127.0.0.1:0", server.address }
    once(t, p, server)
    p:access()
    local text = p.err:match "[^\n]+ access [^\n]+"
    assert.is_truthy(text:find([[ two="x\" reason=eof\n2026 error forged" one="again"]], 1, true), text)
  end)

  case("--access-log off writes none", function(t)
    local server = t:listen()
    local p = t:penstock { "--access-log", "off", "127.0.0.1:0", server.address }
    once(t, p, server)
    p:stop()
    assert.is_nil((p.err:find "access"))
    assert.matches("stopped: 1 connection", p.err)
  end)

  case("--access-log - writes to standard output", function(t)
    local server = t:listen()
    local p = t:penstock { "--access-log", "-", "127.0.0.1:0", server.address }
    once(t, p, server)
    assert.is_truthy(p:wait_for("out", " access (id=1) "))
    p:stop()
    assert.is_nil((p.err:find "access"))
  end)

  case("--access-log FILE writes there, one line for each connection of all workers", function(t)
    local server = t:listen()
    local path = t:folder() .. "/access"
    local p = t:penstock { "--workers", "3", "--access-log", path, "127.0.0.1:0", server.address }
    for _ = 1, 50 do once(t, p, server) end
    p:stop()
    local ids = {}
    for id in sys.read_file(path):gmatch " access id=(%d+) [^\n]+\n" do ids[#ids + 1] = tonumber(id) end
    table.sort(ids)
    assert.equal(50, #ids)
    for i, id in ipairs(ids) do assert.equal(i, id) end
  end)
end)

describe("levels and files:", function()
  case("--log warn leaves out what is only information", function(t)
    local server = t:listen()
    local path = t:folder() .. "/socket"
    local p = t:start { "--workers", "1", "--log", "warn", "unix:" .. path, server.address }
    p.address = "unix:" .. path
    assert.is_truthy(sys.wait_until(function() return t:try_connect(p) or p.status end))
    local first = t:accept(server)
    p:signal "HUP"
    p:log "(warn  HUP)"
    for _, thing in ipairs(t.things) do thing:close() end
    first:close()
    p:stop()
    assert.is_nil((p.err:find " info "))
  end)

  case("--log error keeps access lines", function(t)
    local path = t:folder() .. "/socket"
    local p = t:start { "--workers", "1", "--log", "error", "unix:" .. path, "unix:" .. path .. ".missing" }
    assert.is_truthy(sys.wait_until(function() return t:try_connect("unix:" .. path) or p.status end))
    p:expect_end { reason = "refused", client = "unix" }
    assert.is_nil((p.err:find " warn "))
  end)

  case("a policy logs at each level, with its connection's id", function(t)
    t:expect_error "bad luck"
    local server = t:listen()
    local policy = t:file("levels.lua", [[
      local ps = require "penstock"
      ps.log.info "loaded"
      return { accept = function(conn)
        conn.log.debug "d %"
        conn.log.info("i %d", 1)
        conn.log.warn("w %s", nil)
        conn.log.error "bad luck"
      end }]])
    local p = t:penstock { "--log", "debug", "-p", policy, "127.0.0.1:0", server.address }
    t:expect_echo(p, server)
    p:log "info  (loaded)\n"
    p:log "debug %[conn 1%] (d %%)\n"
    p:log "info  %[conn 1%] (i 1)\n"
    p:log "warn  %[conn 1%] (w nil)\n"
    p:log "error %[conn 1%] (bad luck)\n"
  end)

  case("--log-file takes everything, also from a UNIX listener", function(t)
    local server = t:listen()
    local path = t:folder() .. "/log"
    local p = t:penstock_with_log(path, { "--log-file", path, "unix:" .. t:folder() .. "/socket", server.address })
    once(t, p, server)
    p:stop()
    assert.equal("", p.err)
    local text = sys.read_file(path)
    assert.matches("access id=1 ", text)
    assert.matches("stopped: 1 connection", text)
  end)

  case("--log-format journal has priorities and no time", function(t)
    local server = t:listen()
    local p = t:penstock { "--log-format", "journal", "127.0.0.1:0", server.address }
    once(t, p, server)
    p:log "\n<6>access (id=1) "
    assert.matches("^<6>listening on", p.err)
  end)

  case("the room for connections is told at the start", function(t)
    local p = t:penstock({ "--max-conns", "77", "127.0.0.1:0", "127.0.0.1:1" }, { descriptors = 1000 })
    assert.matches("1 worker, room for 77 connections", p.err)
  end)
end)

-- penstock ctl for pools, stores, buckets, statistics and configuration.
local e2e = require "tests.e2e.support.case"
local admin = require "tests.e2e.support.admin"
local cjson = require "cjson"
local case = e2e.case

-- penstock with this configuration, and a function that runs ctl on it: status, error text, output.
local function start(t, text, args)
  local p, at = admin.configured(t, text, args)
  return p, admin.ctl(t, at), at
end

-- What it prints; a failure of the case when it fails.
local function output(ctl, ...)
  local status, err, out = ctl(...)
  assert.same({ 0, "" }, { status, err })
  return out
end

describe("penstock ctl", function()
  case("shows pools, with whole names but on a terminal, drains a server, weighs it, and takes it back", function(t)
    local a = t:listen()
    local p, ctl, at = start(t, ([[
      local pool = ps.pool { name = "a_name_that_is_rather_long", servers = { %q,
        { "127.0.0.1:1", name = "a_server_whose_name_is_rather_long", weight = 2.5 } } }
      ps.listen { name = "front", bind = "127.0.0.1:0", policy = { connect = function() return pool:server(1) end } }
    ]]):format(a.address))
    local client = t:expect_echo(p, a)
    local out = output(ctl, "pools")
    assert.matches("^POOL +SERVER +STATE +CHECK +WEIGHT +CONNS +DIALLED +FAILED\n", out)
    assert.matches("\na_name_that_is_rather_long 127%.0%.0%.1:%d+ +up +%- +1 +1 +1 +0\n", out)
    assert.matches("\na_name_that_is_rather_long a_server_whose_name_is_rather_long up +%- +2%.5 +0", out)
    local function on_terminal(columns)
      local terminal = t:at_terminal({ "ctl", "--admin", at, "pools" }, { columns = columns })
      assert.equal(0, terminal:wait())
      return terminal.out:gsub("\r", "")
    end
    admin.expect_narrow(on_terminal(80))
    assert.matches("\na_nam…r_long a_server_w…ather_long up +%- +2%.5 +0 +0 +0\n$", on_terminal(80))
    assert.matches("\na_name_that_is_rather_long a_server_whose_name_is_rather_long up ", on_terminal(120))
    local pool = "a_name_that_is_rather_long"
    assert.equal(a.address .. " has the weight 0.5\n", output(ctl, "server", pool, a.address, "weight", "0.5"))
    assert.equal(a.address .. " is drained with 1 connection\n", output(ctl, "server", pool, a.address, "drain"))
    assert.equal(a.address .. " is up with 1 connection\n", output(ctl, "server", pool, a.address, "up"))
    assert.equal(a.address .. " is drained with 1 connection, of which 1 is to end\n",
      output(ctl, "server", pool, a.address, "drain", "--over", "50ms"))
    client:expect_reset()
    assert.equal("drained", cjson.decode(output(ctl, "pools", "--json")).pools[1].servers[1].state)
    local status, err = ctl("server", pool, "a/b?c", "drain")
    assert.equal(1, status)
    assert.matches("there is no server a/b?c in the pool a_name_that_is_rather_long", err, 1, true)
    status, err = ctl("server", pool, a.address, "weight", "--", "-1")
    assert.equal(1, status)
    assert.matches("the body is a weight", err)
  end)

  case("shows stores and buckets, and reads, sets and deletes what is in a store", function(t)
    local _, ctl, at = start(t, [[
      local s = ps.store "seen"
      s:set("a b/c", "text\27[2J", 3600) s:set("\255", 1) s:set("n", 0.1) s:set("bytes", "\0")
      for n = 1, 4 do s:set("bytes" .. n, ("\254\0\255\128"):sub(1, n)) end
      ps.bucket("logins", { rate = 0.5, burst = 5 }):take "x"
      ps.listen { name = "front", bind = "127.0.0.1:0", to = "127.0.0.1:1" }
    ]])
    local out = output(ctl, "stores")
    admin.expect_narrow(out)
    assert.matches("\nseen +8 +100000 +%d+ +256M +0\n$", out)
    out = output(ctl, "buckets")
    admin.expect_narrow(out)
    assert.matches("\nlogins +0%.5 +5 +1 +%d+ +0\n$", out)
    out = output(ctl, "store", "seen", "keys")
    assert.matches("^TYPE +TTL  KEY\n", out)
    assert.matches("\nstring +59m  a b/c\n", out)
    assert.matches("\nnumber +%- base64 /w==\n", out)
    assert.equal("string   59m  a b/c\n", output(ctl, "store", "seen", "keys", "--prefix", "a b/"):match "\n(.*)$")
    assert.equal("text?[2J\n", output(ctl, "store", "seen", "get", "a b/c"))
    assert.equal("0.1\n", output(ctl, "store", "seen", "get", "n"))
    local status, err
    status, err, out = ctl("store", "seen", "get", "bytes")
    assert.same({ 0, "", "\0" }, { status, err, out })
    for n = 1, 4 do
      local bytes = ("\254\0\255\128"):sub(1, n)
      status, err, out = ctl("store", "seen", "get", "bytes" .. n)
      assert.same({ 0, "", bytes }, { status, err, out })
    end
    local terminal = t:at_terminal { "ctl", "--admin", at, "store", "seen", "get", "bytes" }
    assert.equal(1, terminal:wait())
    assert.equal("penstock ctl: the value is no text; write it into a file: > FILE\r\n", terminal.out)
    assert.equal("set\n", output(ctl, "store", "seen", "set", "--type", "number", "--ttl=1h", "--", "-k", "-5"))
    assert.equal("-5\n", output(ctl, "store", "seen", "get", "--", "-k"))
    local item = cjson.decode(output(ctl, "store", "seen", "get", "--json", "--", "-k"))
    assert.same({ "number", true }, { item.type, item.ttl_ms > 3000000 })
    assert.equal("set\n", output(ctl, "store", "seen", "set", "--type", "boolean", "n", "true"))
    assert.equal("true\n", output(ctl, "store", "seen", "get", "n"))
    assert.equal("deleted\n", output(ctl, "store", "seen", "delete", "n"))
    status, err = ctl("store", "seen", "delete", "n")
    assert.equal(1, status)
    assert.matches("there is nothing at the key n", err)
    status, err = ctl("store", "nothing", "keys")
    assert.equal(1, status)
    assert.matches("there is no store nothing", err)
  end)

  case("leads from one page of keys to the next", function(t)
    local _, ctl = start(t, [[
      local s = ps.store "seen"
      for i = 1, 200 do s:set("k" .. i, i) end
      ps.listen { name = "front", bind = "127.0.0.1:0", to = "127.0.0.1:1" }
    ]])
    local n, after = 0, nil
    repeat
      local out = output(ctl, "store", "seen", "keys", "--limit", "50", unpack(after and { "--after", after } or {}))
      for _ in out:gmatch "\nnumber" do n = n + 1 end
      after = out:match "there are more: %-%-after (%S+)\n"
    until not after
    assert.equal(200, n)
  end)

  case("goes on by itself to the keys with a prefix, as far as the limit", function(t)
    local server = t:listen()
    -- Runs it with these arguments against the pages of a large store: what is asked, and the answer.
    local function asked(pages, ...)
      local ctl = t:start { "ctl", "--admin", server.address, "store", "seen", "keys", "--prefix", "r", ... }
      for _, page in ipairs(pages) do
        local peer = server:accept()
        peer:expect("GET /v1/stores/seen/keys?prefix=r" .. page[1] .. " HTTP")
        peer:send(("HTTP/1.1 %d OK\r\nContent-Length: %d\r\n\r\n%s"):format(page[3] or 200, #page[2], page[2]))
        peer:finish()
      end
      return ctl:wait(), ctl.out, ctl.err
    end
    local none, last = '{"keys":[],"next":"1-a"}', '{"keys":[{"key":"r2","type":"number","ttl_ms":null}],"next":null}'
    local one = '{"keys":[{"key":"r1","type":"number","ttl_ms":null}],"next":"2-b"}'
    local both = "TYPE     TTL  KEY\nnumber     -  r1\nnumber     -  r2\n"
    assert.same({ 0, both, "" }, { asked { { "", none }, { "&after=1-a&limit=1000", one },
      { "&after=2-b&limit=999", last } } })
    assert.same({ 0, "TYPE     TTL  KEY\nnumber     -  r1\nthere are more: --after 2-b\n", "" },
      { asked({ { "&limit=1", none }, { "&after=1-a&limit=1", one } }, "--limit", "1") })
    assert.same({ 0, none .. "\n", "" }, { asked({ { "", none } }, "--json") })
    assert.same({ 1, "", "penstock ctl: gone\n" },
      { asked { { "", one }, { "&after=2-b&limit=999", '{"error":"gone"}', 404 } } })
    local status, _, err = asked { { "", one }, { "&after=2-b&limit=999", "{}" } }
    assert.equal(1, status)
    assert.matches("is no admin of this version", err)
  end)

  case("sums up what was counted, in 80 columns", function(t)
    local server, refusing = t:listen(), t:refusing()
    local p, ctl, at = start(t, ([[
      ps.listen { name = "good", bind = "127.0.0.1:0", to = %q, policy = { accept = function() end } }
      ps.listen { name = "bad", bind = "127.0.0.1:0", to = %q }
    ]]):format(server.address, refusing.address), { "--workers", "2" })
    local client, upstream = t:expect_echo(p, server)
    client:finish()
    upstream:finish()
    client:expect_eof()
    client, upstream = t:expect_echo(p, server)
    t:connect(p.addresses[2]):read_all()
    p:access(2)
    local out = output(ctl, "stats")
    admin.expect_narrow(out)
    assert.matches("^up [%d.]+s, configuration 1, reloads: 0 good, 0 failed\ndescriptors: %d+ open, at most %d+\n", out)
    assert.matches("\ngood +1 +2 +8 +8 +0\n  ended: eof 1\n  dialled: ok 2\n", out)
    assert.matches("\nbad +0 +1 +0 +0 +0\n  ended: refused 1\n  dialled: refused 1\n", out)
    assert.matches("\naccept +2 +0 +[%d.]+\n", out)
    assert.matches("\n0 +%S+ +%d+ +[%d.]+\n1 +%S+ +%d+ +[%d.]+\n$", out)
    assert.equal(2, #cjson.decode(output(ctl, "stats", "--json")).listeners)
    local watcher = t:start { "ctl", "--admin", at, "stats", "--watch=100ms" }
    assert.is_truthy(watcher:wait_for("out", "(LISTENER.*LISTENER)"))
    client:finish()
    upstream:finish()
    p:stop()
    assert.equal(1, watcher:wait())
  end)

  case("breaks a line of many counts where the terminal ends", function(t)
    local server = t:listen()
    local ctl = t:start { "ctl", "--admin", server.address, "stats" }
    local peer = server:accept()
    peer:expect "GET /v1/stats"
    local counts = {}
    for i = 1, 40 do counts["a_reason_\27" .. i] = 10 ^ (i % 12) end
    local body = cjson.encode { listeners = { { name = "\27[2J", connections = 1, ended = counts } } }
    peer:send(("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s"):format(#body, body))
    peer:finish()
    assert.equal(0, ctl:wait())
    admin.expect_narrow(ctl.out)
    local _, n = ctl.out:gsub("a_reason_%?", "")
    assert.equal(40, n)
    assert.is_nil(ctl.out:find "\27")
  end)

  case("takes lists where objects belong, and an answer that breaks off, for what they are", function(t)
    local server = t:listen()
    local function answered(request, body, ...)
      local ctl = t:start { "ctl", "--admin", server.address, ... }
      local peer = server:accept()
      peer:expect(request)
      peer:send(("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s"):format(#body, body))
      peer:finish()
      return ctl:wait(), ctl.out, ctl.err
    end
    local status, out = answered("GET /v1/config",
      '{"listeners":[{"names":[1],"options":[2]}],"process":[1]}', "config")
    assert.equal(0, status)
    assert.matches("\n  %- +1\n", out)
    status, out = answered("GET /v1/stats",
      '{"listeners":[{"ended":[1]},7],"hooks":[{"calls":1}],"workers":[1]}', "stats")
    assert.equal(0, status)
    assert.matches("\n%- +1 +0 +0%.0\n", out)
    for _, broken in ipairs { "\\", '{"results":[{"result":"\\', '{"results":[{"result":"\\u0000\\' } do
      local err
      status, _, err = answered("POST /v1/lua", broken, "lua", "1")
      assert.equal(1, status)
      assert.matches("is no admin of this version", err)
    end
  end)

  case("lists the options in force", function(t)
    local _, ctl = start(t, [[
      ps.listen { name = "a", bind = "127.0.0.1:0", to = "127.0.0.1:1", timeouts = { idle = "2m" } }
      ps.listen { name = "b", bind = "127.0.0.1:0", to = "127.0.0.1:1" }
    ]], { "--via", "socks5://user:secret@127.0.0.1:1080,http://127.0.0.1:3128" })
    local out = output(ctl, "config")
    assert.matches("^configuration 1, log level info\n", out)
    assert.matches("\n  workers +1\n", out)
    assert.matches("\n  pid%-file +%-\n", out)
    assert.matches("\n\na\n.*\n  idle%-timeout +2m\n.*\n\nb\n.*\n  idle%-timeout +1h\n", out)
    assert.matches("\n  via +socks5://127.0.0.1:1080,http://127.0.0.1:3128\n", out)
    assert.equal(1, cjson.decode(output(ctl, "config", "--json")).process.workers)
  end)

  case("refuses words that make no sense, with those that would", function(t)
    local function refused(pattern, ...)
      local status, err, out = t:run { "ctl", ... }
      assert.same({ 2, "" }, { status, out })
      assert.matches(pattern, err, 1, true)
    end
    local server, store = "write penstock ctl server POOL SERVER drain", "write penstock ctl store STORE keys"
    refused(server, "server")
    refused(server, "server", "web", "a")
    refused(server, "server", "web", "a", "drian")
    refused(server, "server", "web", "a", "drain", "5m")
    refused(server, "server", "web", "a", "weight")
    refused("server up has no --over", "server", "web", "a", "up", "--over", "5m")
    refused("server has no --ttl", "server", "web", "a", "up", "--ttl", "5m")
    refused(store, "store", "seen")
    refused(store, "store", "seen", "get")
    refused(store, "store", "seen", "set", "a")
    refused("store get has no --ttl", "store", "seen", "get", "a", "--ttl", "5m")
    refused("store has no --over", "store", "seen", "keys", "--over", "5m")
    refused('"x" is one word too many', "pools", "x")
    refused("config has no --watch", "config", "--watch")
    refused("the names or filters are too long", "--admin", "unix:/x", "store", ("%"):rep(4000), "keys")
  end)
end)

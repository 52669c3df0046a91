-- penstock ctl: what an operator sees and does from a terminal.
local e2e = require "tests.e2e.support.case"
local admin = require "tests.e2e.support.admin"
local cjson = require "cjson"
local case, sys = e2e.case, e2e.sys

-- penstock with an admin on a UNIX socket, and a function that runs ctl on it: status, error text, output.
local function start(t, args)
  local p, at = admin.penstock(t, args)
  return p, admin.ctl(t, at), at
end

describe("penstock ctl", function()
  case("drains a listener, and opens it again", function(t)
    local server = t:listen()
    local p, ctl = start(t, { "127.0.0.1:0", server.address })
    local client = t:pair(p, server)
    assert.same({ 0, "", p.address .. " is drained\n" }, { ctl("drain", p.address) })
    assert.is_nil((t:try_connect(p)))
    assert.matches("drained", select(3, ctl "listeners"))
    assert.same({ 0, "", p.address .. " is drained\n" }, { ctl("drain", p.address, "--over", "10ms") })
    client:expect_reset()
    assert.same({ 0, "", p.address .. " is open\n" }, { ctl("up", p.address) })
    t:pair(p, server)
    assert.same({ 1, "penstock ctl: there is no such listener\n", "" }, { ctl("drain", "127.0.0.1:1") })
    for _, wrong in ipairs {
      { "drain needs the name of a listener; penstock ctl listeners shows them", "drain" },
      { "up has no --over; see penstock ctl --help", "up", "x", "--over", "1s" },
      { "reload has no --over; see penstock ctl --help", "reload", "--over", "1s" },
    } do
      local status, err = ctl(unpack(wrong, 2))
      assert.same({ 2, "penstock ctl: " .. wrong[1] .. "\n" }, { status, err })
    end
  end)
end)

describe("penstock ctl shows", function()
  case("health, and its status tells it", function(t)
    local server = t:listen()
    local p, ctl = start(t, { "127.0.0.1:0", server.address })
    local client, upstream = t:expect_echo(p, server)
    local status, _, out = ctl "health"
    assert.equal(0, status)
    assert.matches("^serving\nup [%d.]+s, configuration 1, 1 workers\nconnections: 1 now, at most %d+, 1 so far\n$",
      out)
    p:signal "TERM"
    p:log "no new connections"
    status, _, out = ctl "health"
    assert.equal(1, status)
    assert.matches("^draining\n", out)
    client:finish()
    upstream:finish()
    p:expect_exit(0)
  end)

  case("the version, and metrics as they are", function(t)
    local path = t:file("p.lua", [[
      require("penstock").counter("seen_total"):inc(3)
      return {}
    ]])
    local _, ctl = start(t, { "-p", path, "127.0.0.1:0", "127.0.0.1:1" })
    local status, _, out = ctl "version"
    assert.equal(0, status)
    assert.matches("^penstock %d+%.%d+%.%d+\nconfiguration 1\n$", out)
    status, _, out = ctl "metrics"
    assert.equal(0, status)
    assert.matches("seen_total 3\n", out, 1, true)
  end)

  case("what clients have brought into metrics, as it is, but nothing that a terminal would obey", function(t)
    local path = t:file("p.lua", [[
      require("penstock").counter("seen_total", { "by" }):inc(1, "a\27[2J\194\155z")
      return {}
    ]])
    local _, ctl, at = start(t, { "-p", path, "127.0.0.1:0", "127.0.0.1:1" })
    local _, _, out = ctl "metrics"
    assert.truthy(out:find('seen_total{by="a\27[2J\194\155z"} 1\n', 1, true))
    local on_terminal = t:at_terminal { "ctl", "--admin", at, "metrics" }
    assert.equal(0, on_terminal:wait())
    assert.truthy(on_terminal.out:find('seen_total{by="a?[2J??z"} 1', 1, true))
  end)

  case("listeners and connections in 80 columns", function(t)
    local upstream = t:listen("unix:" .. t:folder() .. "/a_rather_long_name_of_a_socket_to_connect_to.sock")
    local p, ctl = start(t, { "--max-conns-listener", "50", "[::1]:0", upstream.address })
    t:expect_echo(p, upstream)
    local status, _, out = ctl "listeners"
    assert.equal(0, status)
    admin.expect_narrow(out)
    assert.matches("NAME +ADDRESS +STATE +TLS +CONNS +LIMIT +ACCEPTED +LIMITED\n", out)
    assert.matches("\n%[::1%]:%d+ +%[::1%]:%d+ +open +%- +1 +50 +1 +0\n$", out)
    status, _, out = ctl "conns"
    assert.equal(0, status)
    admin.expect_narrow(out)
    assert.matches("     ID CLIENT +UPSTREAM +STATE +AGE IDLE +UP +DOWN\n", out)
    assert.matches("\n      1 %[::1%]:%d+ +%S+… relaying +[%d.]+s +[%d.]+s +4 +4\n$", out)
  end)

  case("the connections that fit a filter, and where there are more", function(t)
    local server = t:listen()
    local path = t:file("p.lua", [[
      return { accept = function(conn) conn:tag("user", conn.seq == 2 and "a b&c=d" or "x") end }
    ]])
    local p, ctl = start(t, { "-p", path, "127.0.0.1:0", server.address })
    for _ = 1, 3 do t:expect_echo(p, server) end
    local function ids(...)
      local status, err, out = ctl("conns", "--json", ...)
      assert.equal(0, status, err)
      local list = {}
      for i, c in ipairs(cjson.decode(out).connections) do list[i] = c.id end
      return list
    end
    assert.same({ 2 }, ids("--tag", "user=a b&c=d"))
    assert.same({ 1, 2, 3 }, ids("--tag=user", "--client", "127.0.0.0/8", "--min-age", "0", "--listener", p.address))
    assert.same({}, ids("--client", "10.0.0.0/8"))
    local _, _, out = ctl("conns", "--limit", "2")
    assert.matches("\nthere are more: %-%-after 2\n$", out)
    assert.same({ 3 }, ids("--limit", "2", "--after", "2"))
    local status, err = ctl("conns", "--client", "nonsense")
    assert.equal(1, status)
    assert.matches("^penstock ctl: client is a network", err)
  end)

  case("the same again and again with --watch", function(t)
    local server = t:listen()
    local p, _, at = start(t, { "127.0.0.1:0", server.address })
    local watcher = t:start { "ctl", "--admin", at, "conns", "--watch=100ms" }
    assert.is_truthy(watcher:wait_for("out", "(DOWN\n\n[^\n]+DOWN\n)"))
    local client, upstream = t:expect_echo(p, server)
    assert.is_truthy(watcher:wait_for("out", "( relaying )"))
    client:finish()
    upstream:finish()
    p:stop()
    assert.equal(1, watcher:wait())
  end)
end)

describe("penstock ctl --watch on a terminal", function()
  case("writes each screen over the one before, and no more connections than it has lines for", function(t)
    local server = t:listen()
    local p, _, at = start(t, { "127.0.0.1:0", server.address })
    for _ = 1, 10 do t:expect_echo(p, server) end
    local terminal = t:at_terminal({ "ctl", "--admin", at, "conns", "--watch=100ms" }, { rows = 10 })
    local screen = terminal:wait_for("out", "\27%[H\27%[2J([^\27]+)\27%[H\27%[2J     ID")
    local lines = {}
    for line in screen:gmatch "[^\r\n]+" do lines[#lines + 1] = line end
    assert.equal(9, #lines, screen)
    assert.matches("^     ID CLIENT", lines[1])
    assert.matches("^      7 ", lines[8])
    assert.equal("there are more: --after 7", lines[9])
  end)
end)

describe("penstock ctl does", function()
  case("kill by id and by filter, and says when nothing was killed", function(t)
    local server = t:listen()
    local p, ctl = start(t, { "127.0.0.1:0", server.address })
    local first = t:expect_echo(p, server)
    local second = t:expect_echo(p, server)
    local third = t:expect_echo(p, server)
    local status, _, out = ctl("kill", 1)
    assert.same({ 0, "1 connection killed\n" }, { status, out })
    first:expect_reset()
    local err
    status, err = ctl("kill", 1)
    assert.equal(1, status)
    assert.matches("there is no connection 1", err)
    status, _, out = ctl("kill", "--client", "10.0.0.0/8")
    assert.same({ 1, "0 connections killed\n" }, { status, out })
    status, _, out = ctl("kill", "--client", "127.0.0.1", "--json")
    assert.same({ 0, 2 }, { status, cjson.decode(out).killed })
    second:expect_reset()
    third:expect_reset()
    status = ctl("kill", "--all")
    assert.equal(1, status)
  end)

  case("reload, and fails with the message when the new version does not load", function(t)
    local server = t:listen()
    t:expect_error "admin: version 2 stays in force"
    local good = ('ps.listen { bind = "127.0.0.1:0", to = %q }'):format(server.address)
    local function write(text) return t:file("penstock.lua", 'local ps = require "penstock"\n' .. text) end
    local _, ctl = start(t, { "run", write(good) })
    local status, _, out = ctl "reload"
    assert.same({ 0, "configuration 2 is in force\n" }, { status, out })
    write "error 'no'"
    local err
    status, err, out = ctl "reload"
    assert.same({ 1, "" }, { status, out })
    assert.matches("^penstock ctl: [^\n]*penstock.lua:2: no\n", err)
  end)

  case("change the log level", function(t)
    local p, ctl = start(t, { "127.0.0.1:0", "127.0.0.1:1" })
    local status, _, out = ctl("log", "debug")
    assert.same({ 0, "the log level is debug\n" }, { status, out })
    p:log "admin: the log level is (debug) now"
    local err
    status, err = ctl("log", "loud")
    assert.equal(1, status)
    assert.matches("error, warn, info or debug", err)
  end)

  case("its work over TCP with a token", function(t)
    local token = t:file("token", ("s"):rep(32) .. "\n")
    assert(os.execute("chmod 600 " .. token))
    local p = t:penstock { "--admin", "127.0.0.1:0", "--admin-token-file", token, "127.0.0.1:0", "127.0.0.1:1" }
    local port = p:log "admin listens on 127.0.0.1:(%d+)"
    assert.equal(0, (t:run { "ctl", "--admin", "127.0.0.1:" .. port, "--token-file", token, "health" }))
    for _, at in ipairs { port, ":" .. port, "tcp://127.0.0.1:" .. port } do
      assert.equal(0, (t:run { "ctl", "--admin", at, "--token-file", token, "health" }))
    end
    assert.equal(0, (t:run { "ctl", "--admin=localhost:" .. port, "--token-file=" .. token, "health" }))
    local status, err = t:run { "ctl", "--admin", "127.0.0.1:" .. port, "health" }
    assert.equal(1, status)
    assert.matches("the token is missing or wrong", err)
    status, err = t:run { "ctl", "--admin", "127.0.0.1:" .. port, "--token-file", t:file("none", ""), "health" }
    assert.equal(1, status)
    assert.matches("cannot read a token from", err)
  end)
end)

describe("penstock ctl refuses", function()
  case("command lines that are wrong, with what would be right", function(t)
    local function refused(pattern, ...)
      local status, err, out = t:run { "ctl", ... }
      assert.same({ 2, "" }, { status, out })
      assert.matches(pattern, err)
    end
    refused "usage: penstock ctl"
    refused('unknown command "con"; did you mean "conns"%?', "con")
    refused('unknown command "listner"; did you mean "listeners"%?', "listner")
    refused('unknown command "x"; penstock ctl %-%-help lists them', "x")
    refused("unknown option %-%-listner; did you mean %-%-listener%?", "conns", "--listner", "x")
    refused("unknown option %-%-listner=x; did you mean %-%-listener%?", "conns", "--listner=x")
    refused("unknown option %-%-colour; penstock ctl %-%-help lists them", "conns", "--colour")
    refused("%-%-min%-age needs a time", "conns", "--min-age")
    refused("version has no %-%-tag", "version", "--tag", "x")
    refused("conns has no %-%-all", "conns", "--all")
    refused("metrics has no %-%-json", "metrics", "--json")
    refused("kill takes the id", "kill")
    refused("kill takes the id", "kill", "1", "--all")
    refused('"x" is no id', "kill", "x")
    refused('"0" is no id', "kill", "0")
    refused('"2" is one word too many', "kill", "1", "2")
    refused('"2" is one word too many', "kill", "1", "2", "3")
    refused('"7" is one word too many', "kill", "1", "2", "3", "4", "5", "7")
    refused('"x" is one word too many', "health", "x")
    refused("log needs a level", "log")
    refused("%-%-watch is a time", "conns", "--watch=0")
    refused("%-%-max%-wait is a time", "conns", "--max-wait", "0")
    refused("%-%-max%-wait is a time", "health", "--max-wait", "soon")
    refused("%-%-json takes no value", "conns", "--json=1")
    for _, words in ipairs { { "--help" }, { "help" }, { "kill", "--help" } } do
      local status, _, out = t:run { "ctl", unpack(words) }
      assert.equal(0, status)
      assert.matches("^usage: penstock ctl", out)
      admin.expect_narrow(out)
    end
  end)

  case("what is no admin, and says so", function(t)
    local function fails(pattern, at)
      local status, err, out = t:run { "ctl", "--admin", at, "conns" }
      assert.same({ 1, "" }, { status, out })
      assert.matches(pattern, err)
    end
    fails("is penstock running, with %-%-admin?", "unix:" .. t:folder() .. "/none")
    fails("is penstock running, with %-%-admin?", t:refusing().address)
    fails("no address of an admin", "example.com:80")
    fails("no address of an admin", "127.0.0.1:80-90")
    for _, bytes in ipairs { "", "HTTP/1.1 200 OK\r\n", "220 mail ESMTP\r\n\r\n", ("x"):rep(100000),
      "HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{\"connections\":[]}" } do
      local server = t:listen()
      local ctl = t:start { "ctl", "--admin", server.address, "conns" }
      local peer = server:accept()
      peer:expect "GET /v1/connections"
      peer:send(bytes)
      peer:finish()
      assert.equal(1, ctl:wait())
      assert.matches("no admin of penstock, or it broke off", ctl.err)
    end
  end)

  case("what speaks HTTP but is no admin, and says so", function(t)
    local server = t:listen()
    local ctl = t:start { "ctl", "--admin", server.address, "conns" }
    local peer = server:accept()
    peer:expect "GET /v1/connections"
    peer:send("HTTP/1.1 404 Not Found\r\n\r\n<html>nginx</html>"):finish()
    assert.equal(1, ctl:wait())
    assert.equal("penstock ctl: status 404, from what is no admin of penstock\n", ctl.err)
  end)

  case("to wait longer than --max-wait, however much comes meanwhile", function(t)
    local server = t:listen()
    for _, beginning in ipairs { "", "HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" } do
      local ctl = t:start { "ctl", "--admin", server.address, "--max-wait", "200ms", "conns" }
      local peer = server:accept():offer(beginning)
      local ended = sys.wait_until(function()
        peer:offer "x"
        return ctl:wait(0)
      end)
      peer:close()
      assert.equal(1, ended)
      assert.matches("no whole answer came in time; %-%-max%-wait TIME waits longer", ctl.err)
    end
  end)

  case("to be wider than a terminal, however large the id", function(t)
    local server = t:listen()
    for _, id in ipairs { "100000", "9999999", "10000000", "9007199254740991" } do
      local ctl = t:start { "ctl", "--admin", server.address, "conns" }
      local peer = server:accept()
      peer:expect "GET /v1/connections"
      local body = ('{"connections":[{"id":%s,"client":"127.0.0.1:50000","upstream":"a.long.name.internal:5432",' ..
        '"state":"relaying","age_ms":1,"idle_ms":1,"up":{"bytes":1e6},"down":{"bytes":1e6}}],"next":null}'):format(id)
      peer:send(("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s"):format(#body, body)):finish()
      assert.equal(0, ctl:wait())
      admin.expect_narrow(ctl.out)
      assert.matches("\n *" .. id .. " 127.0.0.1:50000 +%S+… relaying ", ctl.out)
    end
  end)

  case("to pass on what would move the cursor", function(t)
    local server = t:listen()
    local ctl = t:start { "ctl", "--admin", server.address, "conns" }
    local peer = server:accept()
    peer:expect "GET /v1/connections"
    local body = '{"connections":[{"id":1,"client":"\\u001b[2J\\u009b1m","upstream":"\\nx\\u202e\\u2066",' ..
      '"state":"\\u0007"}],"next":null}'
    peer:send(("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s"):format(#body, body))
    peer:finish()
    assert.equal(0, ctl:wait())
    assert.matches("?[2J??1m", ctl.out, 1, true)
    assert.is_nil(ctl.out:find "[%z\1-\9\11-\31\127]")
    assert.is_nil(ctl.out:find "\194\155")
    assert.matches("?x??????", ctl.out, 1, true)
  end)
end)

-- Lua in a running worker, asked for by an operator: POST /v1/lua and `penstock ctl lua`.
local e2e = require "tests.e2e.support.case"
local admin = require "tests.e2e.support.admin"
local null = require("cjson").null
local case = e2e.case

local function socket(t) return "unix:" .. t:folder() .. "/admin.sock" end

-- penstock with an admin that takes Lua, and its address.
local function start(t, args)
  return admin.penstock(t, { "--admin-lua", unpack(args) })
end

-- The same with the policy `text` and an upstream.
local function start_policy(t, text, args)
  local server = t:listen()
  local words = { "-p", t:file("p.lua", text or "return {}"), "127.0.0.1:0", server.address }
  for i, word in ipairs(args or {}) do table.insert(words, i, word) end
  local p, at = start(t, words)
  return p, at, server
end

local function begin(t, at, code, query)
  return admin.start(t, at, "/v1/lua" .. (query or ""), { method = "POST", body = code })
end

-- What has become of the chunk, in one worker.
local function finish(curl)
  local status, body = admin.finish(curl)
  assert.equal(200, status, body.error)
  return body.results[1], body.results
end

local function lua(t, at, code, query) return finish(begin(t, at, code, query)) end

local function result(t, at, code, query)
  local r = lua(t, at, code, query)
  assert.equal(null, r.error)
  return r.result
end

local function failure(t, at, code, query)
  local r = lua(t, at, code, query)
  assert.equal(null, r.result)
  return r.error, r.incomplete
end

describe("a chunk of Lua", function()
  case("returns values as text, and what it prints", function(t)
    local _, at = start_policy(t)
    assert.same({ worker = 0, output = "", truncated = false, result = "2\tx\t{ 1, a = 2 }", error = null,
      incomplete = false }, lua(t, at, '1 + 1, "x", { 1, a = 2 }'))
    assert.same({ worker = 0, output = "a 1\nb\n", truncated = false, result = null, error = null,
      incomplete = false }, lua(t, at, 'print("a", 1) print "b"'))
    assert.equal("nil", result(t, at, "nil"))
    assert.equal("", result(t, at, '""'))
    assert.equal(null, result(t, at, ""))
    assert.equal("4", result(t, at, "return 4 -- four"))
    for _, head in ipairs { "", "return " } do
      assert.equal("1\t2\t3\t4\t5\t6\t7\t8", result(t, at, head .. "1, 2, 3, 4, 5, 6, 7, 8"))
      assert.equal("1\t2\t3\t4\t5\t6\t7\t8\t…", result(t, at, head .. "1, 2, 3, 4, 5, 6, 7, 8, 9"))
      assert.equal("1\t2\t3\t4\t5\t6\t7\t8\t…", result(t, at, head .. "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11"))
    end
  end)

  case("keeps its globals for the next one, and reads those of the policy", function(t)
    local _, at = start_policy(t, "hits = 3\nreturn {}")
    assert.equal(null, result(t, at, "x, hits = 1, 7"))
    assert.equal("1\t7\t3", result(t, at, "x, hits, _G.hits"))
    assert.equal("nil", result(t, at, "_G.x"))
    assert.equal("true", result(t, at, 'ps == require "penstock"'))
  end)

  case("reaches the modules of the policy as they are in its worker", function(t)
    t:file("seen.lua", "return { n = 0 }")
    local p, at, server = start_policy(t, [[
      local seen = require "seen"
      return { accept = function() seen.n = seen.n + 1 end }
    ]])
    t:expect_echo(p, server)
    assert.equal("1", result(t, at, 'require("seen").n'))
    assert.equal(null, result(t, at, 'require("seen").n = 10'))
    t:expect_echo(p, server)
    assert.equal("{ n = 11 }", result(t, at, 'require "seen"'))
  end)

  case("runs in the worker that was asked for, or in each", function(t)
    local _, at = start_policy(t, nil, { "--workers", "3" })
    assert.equal(2, lua(t, at, "x = 5", "?worker=2").worker)
    local _, all = lua(t, at, "x", "?worker=all")
    local seen = {}
    for i, r in ipairs(all) do seen[i] = r.worker .. "=" .. r.result end
    assert.same({ "0=nil", "1=nil", "2=5" }, seen)
    local status, body = admin.ask(t, at, "/v1/lua?worker=3", { method = "POST", body = "1" })
    assert.equal(400, status)
    assert.matches("worker is the number of a worker", body.error)
  end)

  case("may wait, and use the network", function(t)
    local _, at, server = start_policy(t)
    local asked = begin(t, at, ([[
      local s = assert(ps.tcp.connect %q)
      s:write "ping\n"
      ps.sleep(0.01)
      return (s:line())
    ]]):format(server.address))
    local peer = t:accept(server)
    peer:expect "ping\n"
    peer:send "pong\n"
    assert.equal("pong", finish(asked).result)
  end)

  case("fails with a message and a traceback, which is the operator's and not the log's", function(t)
    local _, at = start_policy(t)
    assert.matches("^prompt:1: boom\nstack traceback:\n.*in function 'f'\n.*prompt:1: in main chunk$",
      (failure(t, at, 'local function f() error "boom" end f()')))
    assert.matches("^prompt:1: gone\nstack traceback:", (failure(t, at, 'error "gone"')))
    assert.matches("^%(error object is a table value%)", (failure(t, at, "error {}")))
    assert.same({ "prompt:1: '=' expected near 'b'", false }, { failure(t, at, "a b") })
  end)

  case("that breaks off says so", function(t)
    local _, at = start_policy(t)
    for _, code in ipairs { "if x then", "f(", "{ 1,", "1 +", "x = function()", "local s = [[\n" } do
      local why, incomplete = failure(t, at, code)
      assert.matches("near '<eof>'$", why)
      assert.is_true(incomplete, code)
    end
    for _, code in ipairs { "x = = 1", "end", "'abc\n" } do
      local _, incomplete = failure(t, at, code)
      assert.is_false(incomplete, code)
    end
  end)

  case("is not let out of the sandbox", function(t)
    local _, at = start_policy(t)
    assert.equal("nil\tnil\tnil\tnil", result(t, at, "io, ffi, os.execute, debug.getinfo"))
    assert.matches("setfenv%(0%) is not for policies", (failure(t, at, "setfenv(0, {})")))
    assert.matches("wrong mode", (failure(t, at, "\27LJ\2\n")))
    assert.matches("^nil\t.*wrong mode", result(t, at, 'load(string.dump(function() end))'))
  end)

  case("that prints without end is cut", function(t)
    local _, at = start_policy(t)
    local r = lua(t, at, 'for i = 1, 3000 do print(("x"):rep(100)) end return "done"')
    assert.is_true(r.truncated)
    assert.equal("done", r.result)
    assert.is_true(#r.output <= 256 * 1024)
    assert.matches("^" .. ("x"):rep(100) .. "\n", r.output)
  end)

  case("of 64 KiB is taken, and none that is longer", function(t)
    local _, at = start_policy(t)
    assert.equal("7", result(t, at, "return 7" .. (" "):rep(64 * 1024 - 8)))
    local status, body = admin.ask(t, at, "/v1/lua", { method = "POST", body = (" "):rep(64 * 1024 + 1) })
    assert.equal(413, status)
    assert.matches("65536 bytes", body.error)
  end)

  case("leaves a line in the log, and what tasks of its own print goes there, too", function(t)
    local p, at = start_policy(t)
    assert.equal(null, result(t, at, "ps.spawn(function() print 'beside' end)\nreturn"))
    p:log "warn  admin: Lua in worker 0, 46 bytes: ps.spawn%(function%(%) print 'beside' end%)"
    p:log "beside"
    assert.equal(null, result(t, at, "--" .. ("y"):rep(300)))
    p:log("Lua in worker 0, 302 bytes: %-%-" .. ("y"):rep(198) .. "…")
  end)

  case("that is behind blanks or a zero byte is in the log, too", function(t)
    local p, at = start_policy(t)
    assert.equal("1", result(t, at, (" \n\t"):rep(100) .. "return 1"))
    p:log "Lua in worker 0, 308 bytes: return 1\n"
    lua(t, at, "@" .. t:file("chunk", "--\0\nreturn 'hidden'\n\27[2J"))
    p:log "Lua in worker 0, 24 bytes: %-%-\\%w+.-return 'hidden'.-\\%w+%[2J\n"
  end)

  case("is in the log with the address over TCP, and so is who turned the log down", function(t)
    local token = ("s"):rep(32)
    local path = t:file("token", token .. "\n")
    assert(os.execute("chmod 600 " .. path))
    local p = t:penstock { "--admin", "127.0.0.1:0", "--admin-token-file", path, "--admin-lua", "-p",
      t:file("p.lua", "return {}"), "127.0.0.1:0", "127.0.0.1:1" }
    local at = p:log "admin listens on (%S+)"
    local headers = { "Authorization: Bearer " .. token }
    local function set(level)
      local put = { method = "PUT", body = level, headers = headers }
      assert.equal(200, (admin.ask(t, at, "/v1/log-level", put)))
    end
    assert.equal(200, (admin.ask(t, at, "/v1/lua", { method = "POST", body = "return 5", headers = headers })))
    p:log "warn  admin: Lua in worker 0 from 127%.0%.0%.1:%d+, 8 bytes: return 5\n"
    set "warn"
    p:log "warn  admin: the log level is warn now"
    set "error"
    p:log "warn  admin: the log level is error now"
    set "info"
    p:log "warn  admin: the log level is info now"
  end)

  case("is counted as a task", function(t)
    local _, at = start_policy(t)
    failure(t, at, "error 'x'")
    local _, text = admin.ask(t, at, "/metrics")
    assert.matches('penstock_hook_calls_total{hook="task"} 1\n', text, 1, true)
    assert.matches('penstock_hook_errors_total{hook="task"} 1\n', text, 1, true)
  end)
end)

describe("a chunk that does not end", function()
  case("of itself, computing, is interrupted, and connections go on", function(t)
    local p, at, server = start_policy(t)
    local client, upstream = t:expect_echo(p, server)
    assert.matches("computed for more than 100 ms without waiting", (failure(t, at, "while true do end")))
    assert.matches("computed for more than 100 ms without waiting",
      (failure(t, at, "while true do pcall(function() while true do end end) end")))
    client:send "more"
    upstream:expect "more"
    assert.equal("2", result(t, at, "1 + 1"))
  end)

  case("and takes more memory than it may, fails", function(t)
    local _, at = start_policy(t)
    assert.matches("not enough memory", (failure(t, at, 'local s = ("x"):rep(2 ^ 29)')))
    assert.equal("2", result(t, at, "1 + 1"))
  end)

  case("but waits past its time is cancelled", function(t)
    local _, at = start_policy(t)
    assert.equal("cancelled: it has waited for 100ms", (failure(t, at, "ps.sleep(60)", "?timeout=100ms")))
    assert.equal("cancelled: it has waited for 100ms",
      (failure(t, at, "while true do pcall(ps.sleep, 60) end", "?timeout=100ms")))
    assert.equal("false\tps.CANCELLED", result(t, at, "pcall(ps.sleep, 60)", "?timeout=100ms"))
    for _, wrong in ipairs { "0", "61", "x" } do
      local status, body = admin.ask(t, at, "/v1/lua?timeout=" .. wrong, { method = "POST", body = "1" })
      assert.equal(400, status)
      assert.matches("timeout is a time up to 60 s", body.error)
    end
  end)

  case("is cancelled when its client hangs up", function(t)
    local p, at = start_policy(t, nil, { "--workers", "2" })
    local curl = begin(t, at, [[
      ps.log.info "begun"
      local _, why = pcall(ps.sleep, 60)
      ps.log.info("ended by %s", tostring(why))
    ]], "?worker=all&timeout=60")
    p:log "begun.*begun"
    curl:kill()
    p:log "ended by ps.CANCELLED.*ended by ps.CANCELLED"
  end)

  case("does not keep others waiting, and another one can wake it", function(t)
    local p, at = start_policy(t)
    local first = begin(t, at, [[
      signal = ps.signal()
      print "one"
      ps.log.info "begun"
      return signal:wait(60)
    ]], "?timeout=60")
    p:log "begun"
    assert.same({ "two\n", "5" }, (function(r) return { r.output, r.result } end)(
      lua(t, at, 'print "two" signal:set(7) return 5')))
    local r = finish(first)
    assert.same({ "one\n", "7" }, { r.output, r.result })
  end)

  case("ends with the version that it runs in, whether connections keep that or not", function(t)
    local p, at, server = start_policy(t, "version = 1 return {}")
    for round = 1, 2 do
      if round == 2 then t:expect_echo(p, server) end
      local from = #p.err + 1
      local curl = begin(t, at, 'ps.log.info "begun" ps.sleep(60)', "?timeout=60")
      p:log("begun", from)
      t:file("p.lua", ("version = %d return {}"):format(round + 1))
      assert.equal(200, (admin.ask(t, at, "/v1/reload", { method = "POST" })))
      assert.equal("cancelled: a reload has replaced the version that it ran in", finish(curl).error)
      assert.equal(tostring(round + 1), result(t, at, "version"))
    end
  end)

  case("ends with penstock", function(t)
    local p, at = start_policy(t, nil, { "--workers", "2" })
    local curl = begin(t, at, 'ps.log.info "begun" ps.sleep(60)', "?timeout=60&worker=all")
    p:log "begun.*begun"
    p:signal "TERM"
    local _, results = finish(curl)
    for i = 1, 2 do assert.equal("cancelled: penstock stops", results[i].error) end
    p:expect_exit(0)
  end)

  case("goes on while connections do, after TERM", function(t)
    local p, at, server = start_policy(t)
    local client, upstream = t:expect_echo(p, server)
    local curl = begin(t, at, 'signal = ps.signal() ps.log.info "begun" return signal:wait(60)', "?timeout=60")
    p:log "begun"
    p:signal "TERM"
    p:log "no new connections"
    assert.equal(null, result(t, at, "signal:set(1)"))
    assert.equal("1", finish(curl).result)
    client:finish()
    upstream:finish()
    p:expect_exit(0)
  end)
end)

describe("Lua is refused", function()
  case("unless it was allowed, with the option that allows it", function(t)
    local path = t:file("p.lua", "return {}")
    t:penstock { "--admin", socket(t), "-p", path, "127.0.0.1:0", "127.0.0.1:1" }
    local status, body = admin.ask(t, socket(t), "/v1/lua", { method = "POST", body = "1" })
    assert.equal(403, status)
    assert.matches("%-%-admin%-lua", body.error)
  end)

  case("where no policy is, and it says how to have one", function(t)
    local _, at = start(t, { "127.0.0.1:0", "127.0.0.1:1" })
    local status, body = admin.ask(t, at, "/v1/lua?worker=all", { method = "POST", body = "1" })
    assert.equal(409, status)
    assert.matches("start penstock with %-p FILE", body.error)
  end)

  case("without the token", function(t)
    local token = t:file("token", ("s"):rep(32) .. "\n")
    assert(os.execute("chmod 600 " .. token))
    local p = t:penstock { "--admin", "127.0.0.1:0", "--admin-token-file", token, "--admin-lua", "-p",
      t:file("p.lua", "return {}"), "127.0.0.1:0", "127.0.0.1:1" }
    local at = p:log "admin listens on (%S+)"
    assert.equal(401, (admin.ask(t, at, "/v1/lua", { method = "POST", body = "1" })))
    assert.equal(200, (admin.ask(t, at, "/v1/lua", { method = "POST", body = "1",
      headers = { "Authorization: Bearer " .. ("s"):rep(32) } })))
  end)

  case("to everybody on the host, and without an admin", function(t)
    local function refused(pattern, ...)
      local status, err = t:run { ... }
      assert.equal(2, status)
      assert.matches(pattern, err)
    end
    t:expect_error "every user of this host"
    t:expect_error "belongs to %-%-admin"
    refused("every user of this host", "--admin", "127.0.0.1:0", "--admin-no-token", "--admin-lua", "127.0.0.1:0",
      "127.0.0.1:1")
    refused("%-%-admin%-lua belongs to %-%-admin", "--admin-lua", "127.0.0.1:0", "127.0.0.1:1")
  end)

  case("with arguments that are none", function(t)
    local _, at = start_policy(t)
    local status, body = admin.ask(t, at, "/v1/lua?wroker=1", { method = "POST", body = "1" })
    assert.equal(400, status)
    assert.matches("there is no argument wroker; there are worker and timeout", body.error)
    assert.equal(405, (admin.ask(t, at, "/v1/lua")))
  end)
end)

describe("ps.options", function()
  case("allows Lua, too", function(t)
    local path = t:file("penstock.lua", ([[
      local ps = require "penstock"
      ps.options { admin = %q, admin_lua = true }
      ps.listen { bind = "127.0.0.1:0", to = "127.0.0.1:1" }
    ]]):format(socket(t)))
    t:penstock { "run", path }
    assert.equal("2", result(t, socket(t), "1 + 1"))
  end)
end)

-- ---- penstock ctl lua ----

-- A terminal that runs it. Returns the process: write() types, out is the screen.
local function terminal(t, at, ...)
  return t:at_terminal({ "ctl", "--admin", at, "lua", ... },
    { input = true, env = { TERM = "xterm", LC_ALL = "C.UTF-8", HOME = t:folder() } })
end

-- Types `line` and waits for a pattern behind what was there before.
local function type_line(screen, line, pattern)
  local from = #screen.out + 1
  screen:write(line .. "\n")
  local found = screen:wait_for("out", "(" .. pattern .. ")", from)
  assert(found, ("%q does not come after %q: %q"):format(pattern, line, screen.out))
  return found
end

describe("penstock ctl lua", function()
  case("runs a chunk and prints what comes of it", function(t)
    local _, at = start_policy(t, nil, { "--workers", "2" })
    local function ctl(...) return t:run { "ctl", "--admin", at, "lua", ... } end
    local status, err, out = ctl "print 'p' return 1 + 1, { a = 1 }"
    assert.same({ 0, "", "p\n2\t{ a = 1 }\n" }, { status, err, out })
    status, err, out = ctl "x = 1"
    assert.same({ 0, "", "" }, { status, err, out })
    status, err, out = ctl("--worker", "all", "x")
    assert.same({ 0, "", "worker 0:\n1\nworker 1:\nnil\n" }, { status, err, out })
    status, err, out = ctl "print 'before' error 'no'"
    assert.same({ 1, "before\n" }, { status, out })
    assert.matches("^prompt:1: no\nstack traceback:\n", err)
    status, err = ctl("--timeout=100ms", "ps.sleep(9)")
    assert.same({ 1, "cancelled: it has waited for 100ms\n" }, { status, err })
    status, err, out = ctl("--json", "1")
    assert.same({ 0, "" }, { status, err })
    assert.matches('"result":"1"', out, 1, true)
    status = ctl("--json", "error 'x'")
    assert.equal(1, status)
    status, err = ctl("--worker", "9", "1")
    assert.equal(1, status)
    assert.matches("^penstock ctl: worker is the number", err)
  end)

  case("takes its chunk from standard input", function(t)
    local _, at = start_policy(t)
    local function piped(text)
      local ctl = t:spawn({ os.getenv "PENSTOCK", "ctl", "--admin", at, "lua" }, { input = true })
      ctl:write(text)
      ctl:end_input()
      return ctl:wait(), ctl.err, ctl.out
    end
    assert.same({ 0, "", "3\n" }, { piped "local a = 1\nlocal b = 2\nreturn a + b\n" })
    local status, err = piped(("-"):rep(65537))
    assert.equal(1, status)
    assert.matches("64 KiB", err)
    status, err = piped "a\0b"
    assert.equal(1, status)
    assert.matches("zero byte", err)
  end)

  case("passes nothing on that a terminal would obey", function(t)
    local _, at = start_policy(t)
    local status, err, out = t:run { "ctl", "--admin", at, "lua",
      [[print("a\27[2J\194\155z\0\r") error("e\27[2J")]] }
    assert.same({ 1, "a?[2J??z??\n" }, { status, out })
    assert.matches("^prompt:1: e%?%[2J\n", err)
  end)

  case("is a prompt at a terminal, with chunks of several lines, history and errors", function(t)
    local _, at = start_policy(t)
    local screen = terminal(t, at)
    assert.truthy(screen:wait_for("out", "(Ctrl%-D ends%.\r\n.*> )"))
    type_line(screen, "x = 20", "\n[^\n]*> ")
    type_line(screen, "x + 1", "\n21\r\n[^\n]*> ")
    type_line(screen, "for i = 1, 2 do", "\n[^\n]*>> ")
    type_line(screen, "print(i * 100)", "\n[^\n]*>> ")
    type_line(screen, "end", "\n100\r\n200\r\n[^\n]*> ")
    type_line(screen, "error 'no'", "\nprompt:1: no\r\nstack traceback:\r\n.*> ")
    type_line(screen, [["\27[2J\194\155é"]], "\n%?%[2J%?%?é\r\n[^\n]*> ")
    type_line(screen, "7 * 6", "\n42\r\n[^\n]*> ")
    type_line(screen, "\27[A", "\n42\r\n[^\n]*> ") -- the line before again
    type_line(screen, "7 * 7\27[D\27[D\27[D\27[D\8" .. "6", "\n42\r\n[^\n]*> ") -- edited
    screen:write "\4"
    assert.equal(0, screen:wait())
  end)

  case("takes tabs as they are typed or pasted, and ends with exit or quit alone in a line", function(t)
    local _, at = start_policy(t)
    for _, word in ipairs { "exit", " quit " } do
      local screen = terminal(t, at)
      assert.truthy(screen:wait_for("out", "(> )"))
      type_line(screen, 'return\t#"a\tb"', "\n3\r\n[^\n]*> ")
      type_line(screen, "exit == nil", "\ntrue\r\n[^\n]*> ")
      screen:write(word .. "\n")
      assert.equal(0, screen:wait())
    end
  end)

  case("gives up a chunk on Ctrl-C, while it is typed and while it runs, and goes on", function(t)
    local p, at = start_policy(t)
    local screen = terminal(t, at, "--timeout", "60")
    assert.truthy(screen:wait_for("out", "(> )"))
    type_line(screen, "if true then", "\n[^\n]*>> ")
    local from = #screen.out + 1
    screen:write "junk\3"
    assert.truthy(screen:wait_for("out", "(\n[^\n]*> )", from))
    type_line(screen, "1 + 1", "\n2\r\n[^\n]*> ")
    screen:write "ps.log.info 'begun' pcall(ps.sleep, 60) ps.log.info 'ended'\n"
    p:log "info  begun"
    from = #screen.out + 1
    screen:write "\3"
    assert.truthy(screen:wait_for("out", "(interrupted\r\n[^\n]*> )", from))
    p:log "info  ended"
    type_line(screen, "2 + 2", "\n4\r\n[^\n]*> ")
    screen:write "\4"
    assert.equal(0, screen:wait())
  end)

  case("tells at once that there is no prompt", function(t)
    t:penstock { "--admin", socket(t), "-p", t:file("p.lua", "return {}"), "127.0.0.1:0", "127.0.0.1:1" }
    local screen = terminal(t, socket(t))
    assert.equal(1, screen:wait())
    assert.matches("start penstock with %-%-admin%-lua", screen.out)
    local everywhere = terminal(t, socket(t), "--worker", "all")
    assert.equal(2, everywhere:wait())
    assert.matches("the prompt is in one worker", everywhere.out)
  end)

  case("goes on when penstock was away", function(t)
    local p, at = start_policy(t)
    local screen = terminal(t, at)
    assert.truthy(screen:wait_for("out", "(> )"))
    p:stop()
    type_line(screen, "1", "is penstock running, with %-%-admin%?.*> ")
    start_policy(t)
    type_line(screen, "1 + 2", "\n3\r\n[^\n]*> ")
    screen:write "\4"
    assert.equal(0, screen:wait())
  end)
end)

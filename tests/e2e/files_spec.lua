-- Files that a policy opens: regular ones, text, and while it loads.
local e2e = require "tests.e2e.support.case"
local admin = require "tests.e2e.support.admin"
local case = e2e.case

local function start(t, text, ...)
  local server, at = t:listen(), "unix:" .. t:folder() .. "/admin.sock"
  local args = { "--admin", at, "--admin-lua", ... }
  for _, word in ipairs { "-p", t:file("policy.lua", text), "127.0.0.1:0", server.address } do
    args[#args + 1] = word
  end
  return t:penstock(args), server, at
end

local function pipe(t, name)
  local path = t:folder() .. "/" .. name
  assert(os.execute("mkfifo " .. path))
  return path
end

local function lua(t, at, code)
  local status, body = admin.ask(t, at, "/v1/lua", { method = "POST", body = code })
  assert.equal(200, status)
  return body.results[1]
end

describe("the files of a policy", function()
  case("are opened by no hook and no prompt, whatever they are", function(t)
    local path = pipe(t, "pipe.lua")
    t:file("secret.lua", "9f86d081884c7d65")
    local p, server, at = start(t, ([[
      return { accept = function(conn)
        for what, call in pairs { loadfile = { loadfile, %q }, dofile = { dofile, %q }, require = { require, "pipe" },
          searchpath = { package.searchpath, "pipe", package.path }, stdin = { loadfile },
          secret = { require, "secret" } } do
          local ok, why = pcall(unpack(call))
          conn:tag(what, tostring(ok) .. " " .. tostring(why))
        end
      end }]]):format(path, path))
    local client, upstream = t:expect_echo(p, server)
    client:finish()
    upstream:finish()
    local line = p:access(1)
    for what, why in pairs {
      loadfile = "loadfile: files are opened only while the policy loads; call it at the top of the file",
      dofile = "dofile: files are opened only while the policy loads; call it at the top of the file",
      searchpath = "package.searchpath: files are looked for only while the policy loads",
      require = "module 'pipe' is not loaded, and files are opened only while the policy loads; require it at the " ..
        "top of the file",
      stdin = "loadfile(path): a string is expected, got nil",
    } do
      assert.equal("false " .. why, line[what])
    end
    assert.matches("^false module 'secret' is not loaded", line.secret)
    for _, code in ipairs { ("loadfile %q"):format(path), ("dofile %q"):format(path), 'require "pipe"' } do
      assert.matches("files are opened only while the policy loads", lua(t, at, code).error)
    end
    assert.matches("a string is expected, got nil", lua(t, at, "dofile()").error)
    assert.is_nil(tostring(lua(t, at, 'require "secret"').error):find("9f86", 1, true))
  end)

  case("are found by require afterwards when they are loaded, and the modules of the binary always", function(t)
    t:file("seen.lua", "return { n = 3 }")
    local _, _, at = start(t, 'require "seen" return {}')
    assert.equal("3", lua(t, at, 'require("seen").n').result)
    assert.equal("function", lua(t, at, 'type(require "penstock.nearest")').result)
    assert.equal("table", lua(t, at, 'type(require "penstock.ngx")').result)
    assert.matches("^prompt:1: module 'sen' is not loaded", lua(t, at, 'local m = require "sen" return m').error)
  end)

  case("are regular files, and a pipe in their place holds nobody up", function(t)
    local path = pipe(t, "pipe.lua")
    t:file("twice.lua", "#!/usr/bin/env luajit\nreturn 2 * n")
    local p, server = start(t, ([[
      local chunk, why = loadfile(%q)
      assert(chunk == nil and why == "cannot open " .. %q .. ": it is no file", why)
      assert(select(2, loadfile "/no/such/file"):find("cannot open /no/such/file: ", 1, true))
      assert(not pcall(loadfile) and not pcall(dofile) and not pcall(dofile, %q))
      assert(not pcall(require, "pipe") and not package.searchpath("pipe", package.path))
      local found, tried = package.searchpath("a.b", "/x/?.lua;;/y/?/?")
      assert(found == nil and tried == "\n\tno file '/x/a/b.lua'\n\tno file '/y/a/b/a/b'", tried)
      assert(package.searchpath("twice", package.path) == %q)
      assert(loadfile(%q, "t", { n = 4 })() == 8)
      n = 5
      assert(dofile(%q) == 10 and require "twice" == 10)
      return {}]]):format(path, path, path, t:folder() .. "/twice.lua", t:folder() .. "/twice.lua",
        t:folder() .. "/twice.lua"))
    t:expect_echo(p, server)
  end)

  case("are what the operating system says with --unsafe-lua", function(t)
    t:file("late.lua", "return 7")
    local _, _, at = start(t, "return {}", "--unsafe-lua")
    assert.equal("7", lua(t, at, 'require "late"').result)
    assert.equal("7", lua(t, at, ("dofile %q"):format(t:folder() .. "/late.lua")).result)
  end)
end)

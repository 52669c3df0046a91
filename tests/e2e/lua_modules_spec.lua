-- Modules written in C: none but those that --lua-modules names. Debian's lua-cjson is installed; its lua-lpeg is
-- unpacked by `scripts/deps test` into build/third-party.
local lfs = require "lfs"
local e2e = require "tests.e2e.support.case"
local case = e2e.case

local third_party = lfs.currentdir() .. "/build/third-party/usr"

local function environment()
  local c = io.popen "dpkg-architecture -qDEB_HOST_MULTIARCH 2>/dev/null || gcc -print-multiarch"
  local triplet = c:read "*l"
  c:close()
  local folder = ("%s/lib/%s/lua/5.1"):format(third_party, triplet)
  if not lfs.attributes(folder .. "/lpeg.so") then error("lpeg.so is missing: run scripts/deps test", 0) end
  return { LUA_PATH = third_party .. "/share/lua/5.1/?.lua;;", LUA_CPATH = folder .. "/?.so;;" }
end

local function start(t, text, modules)
  local server = t:listen()
  local policy = t:file("policy.lua", 'local ps = require "penstock"\n' .. text)
  local args = { "--lua-modules", modules, "-p", policy, "127.0.0.1:0", server.address }
  return t:penstock(args, { env = environment() }), server
end

-- Starts penstock with a policy that must not load. Returns what it says.
local function refused(t, text, ...)
  local args = { ... }
  for _, word in ipairs { "-p", t:file("policy.lua", text), "127.0.0.1:0", "127.0.0.1:1" } do args[#args + 1] = word end
  local status, err = t:run(args, { env = environment() })
  t.servers[#t.servers].status = status
  t:allow_error "."
  assert.equal(2, status, err)
  return err
end

describe("--lua-modules:", function()
  case("cjson: a document makes the round trip through a data hook", function(t)
    local p, server = start(t, [[
      local json, safe = require "cjson", require "cjson.safe"
      return { data = function(conn, dir, chunk)
        local value, why = safe.decode(chunk)
        if not value then return "bad: " .. why:sub(1, 8) end
        value.seen = { json.null, dir }
        return json.encode(json.decode(json.encode(value))):gsub("\\/", "/"):len() .. " " .. tostring(value.list[2])
      end }]], "cjson")
    local client, upstream = t:pair(p, server)
    client:send '{"list":[1,"two",3.5]}'
    upstream:expect "41 two"
    client:send '{"list":'
    upstream:expect "bad: Expected"
  end)

  case("lpeg and its Lua part re: a grammar in a filter", function(t)
    local p, server = start(t, [[
      local lpeg, re = require "lpeg", require "re"
      local command = re.compile "{| ({:verb: %a+ :} (' '+ {[^ ]+})*) |} !."
      local upper = lpeg.Cs((lpeg.R "az" / string.upper + 1) ^ 0)
      return { filter = { up = function(conn, rd, wr)
        for line, eol in rd:lines() do
          local words = command:match(line)
          wr:write(words and upper:match(words.verb) .. "/" .. table.concat(words, ",") or "?", eol)
        end
      end } }]], "lpeg")
    local client, upstream = t:pair(p, server)
    client:send "set  key value\n1\n"
    upstream:expect "SET/key,value\n?\n"
  end)

  case("several modules, in one list", function(t)
    local p, server = start(t, 'assert(require "lpeg" and require "cjson") return {}', "cjson,lpeg")
    t:expect_echo(p, server)
  end)

  case("a module that is not listed is refused with the option that opens it", function(t)
    assert.matches("policy.lua:1: module 'cjson' not found.*is written in C %(/.*cjson.so%).*%-%-lua%-modules cjson",
      refused(t, 'require "cjson"'))
    assert.matches("%-%-lua%-modules cjson", refused(t, 'require "cjson.safe"', "--lua-modules", "lpeg"))
  end)

  case("what policies do to Lua's libraries opens no other module", function(t)
    for _, trick in ipairs {
      'string.match = function() return "lpeg" end', 'package.cpath = package.path',
      'string.gsub = function() return "lpeg" end', 'package.searchpath = function() return "/lib/x.so" end',
      'setfenv(package.loaders[3], { match = function() return "lpeg" end })',
      'getmetatable("").__index = { match = function() return "lpeg" end, gsub = string.gsub }',
    } do
      refused(t, trick .. ' assert(not pcall(require, "cjson")) assert(not package.loadlib) error "still closed"',
        "--lua-modules", "lpeg")
      assert.matches("still closed", t.servers[#t.servers].err)
    end
  end)

  case("a listed module that is not installed says where it was looked for", function(t)
    assert.matches("module 'nowhere' not found.*nowhere.so",
      refused(t, 'require "nowhere"', "--lua-modules", "nowhere"))
  end)

  case("what is no list of names is refused", function(t)
    for _, list in ipairs { "", ",", "cjson,", "cjson lpeg", "../x", "a..b/", ".x" } do
      assert.matches("lua%-modules", refused(t, "return {}", "--lua-modules", list))
    end
  end)

  case("a configuration cannot open modules for itself", function(t)
    local file = t:file("penstock.lua", 'require "penstock".options { lua_modules = "cjson" }')
    local status, err = t:run({ "run", file })
    t.servers[1].status = status
    t:allow_error "."
    assert.equal(2, status)
    assert.matches("lua_modules is for whoever starts penstock to grant: %-%-lua%-modules", err)
  end)
end)

-- The Lua in the documents runs: every block is loaded without a warning, policies and configurations are put through
-- virtual connections that must not make a hook raise, specs must pass, and where a block says what is sent and what
-- arrives (tests/e2e/support/snippets.lua), real sockets must see that.
local lfs = require "lfs"
local e2e = require "tests.e2e.support.case"
local snippets = require "tests.e2e.support.snippets"
local tls = require "tests.e2e.support.tls"
local case, sys = e2e.case, e2e.sys

local third_party = lfs.currentdir() .. "/build/third-party/usr/share/lua/5.1"
local environment = { LUA_PATH = third_party .. "/?.lua;;" } -- what scripts/deps test has unpacked

local function documents()
  local list = { "README.md" }
  for name in lfs.dir "docs" do
    if name:find "%.md$" then list[#list + 1] = "docs/" .. name end
  end
  table.sort(list)
  return list
end

-- The files of TLS that documents speak of are made, in the case's folder.
local function with_files(t, text)
  for name in text:gmatch "/etc/penstock/([%w_]+)%.pem" do
    if not sys.read_file(t:folder() .. "/" .. name .. ".pem") then
      local made = tls.certificate(t:folder(), name)
      sys.write_file(t:folder() .. "/" .. (name == "cert" and "key.pem" or name .. ".key"), sys.read_file(made.key))
    end
  end
  return (text:gsub("/etc/penstock/", t:folder() .. "/"))
end

-- Puts what the block may load beside it: the document's named blocks, and the examples.
local function lay_out(t, all)
  for name in lfs.dir "examples" do
    if name:find "%.lua$" and not name:find "_spec%.lua$" then t:file(name, sys.read_file("examples/" .. name)) end
  end
  for _, s in ipairs(all) do
    if s.name and s.kind ~= "spec" then t:file(s.name, with_files(t, s.text)) end
  end
end

local function expect_success(status, err, out)
  if status ~= 0 then error(("status %d:\n%s%s"):format(status, out, err), 0) end
end

local function serves(s) return s.text:find "serve = " ~= nil end

-- The words that make penstock load it.
local function arguments(s, path, listen, target)
  local args = s.modules and { "--lua-modules", s.modules } or {}
  local words = { "run", path }
  if s.kind == "policy" then words = { "-p", path, listen, serves(s) and "-" or target } end
  for _, word in ipairs(words) do args[#args + 1] = word end
  return args
end

local function check(t, s, path)
  local args = arguments(s, path, "127.0.0.1:0", "127.0.0.1:7001")
  if s.kind == "config" then args = { path } end
  table.insert(args, 1, "check")
  local status, err, out = t:run(args, { env = environment })
  expect_success(status, err, out)
  for line in out:gmatch "warning: [^\n]*" do
    if not line:find(third_party, 1, true) then error(line, 0) end -- of libraries that are not ours it may have some
  end
end

-- ---- virtual connections ----

-- Destinations that the text names, which the spec opens.
local function addresses(text)
  local list, seen = {}, { ["127.0.0.1:0"] = true }
  text = text:gsub("bind = %b{}", ""):gsub('bind = "[^"]*"', "")
  for address in text:gmatch '[@/"]([%w%-]+[%w.%-]*%.[%w.%-]+:%d+)"' do
    if not seen[address] then list[#list + 1] = ("%q"):format(address) end
    seen[address] = true
  end
  return table.concat(list, ", ")
end

local drive = [[
local t = require "penstock.test"

local function drive(from, names)
  local p, raises = t.load(%s), %s
  if raises then p:expect_error(raises) end
  local upstreams, seen = {}, {}
  for i, address in ipairs(names) do upstreams[i], seen[i] = p:upstream(address), 0 end
  local c = p:client { ip = from }
  if not c:closed() then c:send "GET / HTTP/1.1\r\nHost: www.lab\r\n\r\n" end
  for _ = 1, 10 do
    for i, u in ipairs(upstreams) do
      if #u.connections > seen[i] and not u:ended() then u:send "yes\r\n" end
      seen[i] = #u.connections
    end
    t.advance(1)
  end
  if not c:closed() then c:finish() end
  for i, u in ipairs(upstreams) do
    if seen[i] > 0 and not u:ended() then u:finish() end
  end
  t.advance "3h"
  assert.truthy(c:closed(), "the connection has no end")
end

it("lets clients of 10.0.0.0/8 come and go", function() drive("10.1.2.3", { %s }) end)
it("lets others come and go", function() drive("203.0.113.7", { %s }) end)
]]
local drive_alone = [[
it("lets clients come and go while nothing answers", function() drive("10.1.2.3", {}) end)
]]

local function drive_virtually(t, s, path)
  local options = s.kind == "policy" and not serves(s) and ', { to = "127.0.0.1:7001" }' or ""
  local names = addresses(s.text .. '"127.0.0.1:7001"')
  local raises = s.raises and ("%q"):format(s.raises) or "nil"
  local text = drive:format(("%q"):format(path) .. options, raises, names, names)
  local spec = t:file("drive_spec.lua", text .. (s.raises and "" or drive_alone))
  local status, err, out = t:run { "test", spec }
  expect_success(status, err, out)
end

-- ---- real sockets ----

local function drive_really(t, s)
  local server, text = t:listen(), s.text
  if s.kind == "config" then
    text = text:gsub('bind = "[^"]*"', 'bind = "127.0.0.1:0"'):gsub('to = "[^"]*"', ('to = %q'):format(server.address))
  end
  local path = t:file("live.lua", with_files(t, text))
  local p = t:penstock(arguments(s, path, "127.0.0.1:0", server.address), { env = environment })
  if #s.wire == 0 then return end
  local sides = { client = t:connect(p) }
  for _, step in ipairs(s.wire) do
    if step.who == "upstream" and not sides.upstream then sides.upstream = t:accept(server) end
    if step.act == "sends" then
      sides[step.who]:send(step.bytes)
    else
      sides[step.who]:expect(step.bytes)
    end
  end
end

local function try(t, s, all)
  lay_out(t, all)
  local path = t:file(s.kind == "spec" and "block_spec.lua" or s.name or "block.lua", with_files(t, s.text))
  if s.kind == "spec" then
    local status, err, out = t:run { "test", path }
    expect_success(status, err, out)
    return
  end
  check(t, s, path)
  -- Specs load no modules written in C and no other path.
  local foreign = s.modules or s.text:find("nginx.redis", 1, true)
  if not foreign then drive_virtually(t, s, path) end
  if foreign or #s.wire > 0 then drive_really(t, s) end
end

local n_blocks, n_wires = 0, 0
for _, document in ipairs(documents()) do
  local all = snippets.of(document)
  if #all > 0 then
    describe(document .. ":", function()
      for _, s in ipairs(all) do
        n_blocks, n_wires = n_blocks + 1, n_wires + (#s.wire > 0 and 1 or 0)
        local how = #s.wire > 0 and ", with the bytes it tells of" or ""
        case(("line %d, a %s%s"):format(s.line, s.kind, how), function(t) try(t, s, all) end)
      end
    end)
  end
end

describe("the documents", function()
  it("have blocks of Lua, and some that tell what passes", function()
    assert.is_true(n_blocks >= 75, n_blocks .. " blocks were found")
    assert.is_true(n_wires >= 15, n_wires .. " of them tell what passes")
  end)
end)

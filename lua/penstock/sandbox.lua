-- What policies see of Lua's own libraries: without --unsafe-lua nothing that runs programs, opens files, ends the
-- process, loads machine code or bytecode, or reads memory.
--
-- The functions that stay behind know no globals and call no method: policies may change both.
local error, tonumber, format, gsub, match = error, tonumber, string.format, string.gsub, string.match

local allowed = {
  os = { "clock", "date", "difftime", "getenv", "time" },
  debug = { "traceback" }, -- getinfo hands out functions that were never meant for scripts
  jit = { "version", "version_num", "os", "arch" },
  package = { "loaded", "preload", "loaders", "path", "config", "searchpath", "seeall" },
}
local removed = { "io", "ffi", "newproxy", "jit.util", "jit.opt", "jit.profile" }
local unsafe_buffer = { "ref", "reserve", "commit", "set", "putcdata" } -- they hand out or take pointers

-- `require` of *.lua, text only.
local function text_searcher(package, loadfile)
  local searchpath = package.searchpath
  return function(name)
    local file, tried = searchpath(name, package.path)
    if not file then return tried end
    local chunk, why = loadfile(file, "t")
    if not chunk then error(format("error loading module '%s' from file '%s':\n\t%s", name, file, why), 0) end
    return chunk
  end
end

-- `require` of the modules written in C that `list` ("cjson,lpeg") names, along the C path of the system; whatever it
-- finds besides is refused by name.
local function c_searcher(package, list)
  local searchpath, loadlib, cpath = package.searchpath, package.loadlib, package.cpath
  local listed = {}
  for name in list:gmatch "[^,]+" do listed[name] = true end

  local function load(file, name)
    local opened, why = loadlib(file, "luaopen_" .. gsub(name, "%.", "_"))
    if not opened then error(format("error loading module '%s' from file '%s':\n\t%s", name, file, why), 0) end
    return opened
  end

  return function(name)
    local root = match(name, "^[^.]*") -- "cjson.safe" is in the file of "cjson"
    local file, tried = searchpath(name, cpath)
    if not file and root ~= name then file = searchpath(root, cpath) end
    if not file then return tried end
    if listed[name] or listed[root] then return load(file, name) end
    return format("\n\tthe module '%s' is written in C (%s): it is opened to policies by --lua-modules %s", name,
      file, root)
  end
end

local function text_only(G)
  local load, loadfile = G.load, G.loadfile
  function G.load(chunk, name, _, ...) return load(chunk, name, "t", ...) end
  function G.loadstring(chunk, name) return load(chunk, name, "t") end
  function G.loadfile(file, _, ...) return loadfile(file, "t", ...) end
  function G.dofile(file)
    local chunk, why = loadfile(file, "t")
    if not chunk then error(why, 0) end
    return chunk()
  end
end

-- close(G, buffer_methods, modules): takes away what is unsafe from the globals G and the methods of string.buffer.
return function(G, buffer_methods, modules)
  local package, loaded, loadfile = G.package, G.package.loaded, G.loadfile
  text_only(G)
  package.loaders = { package.loaders[1], text_searcher(package, loadfile), c_searcher(package, modules) }
  for name, keys in pairs(allowed) do
    local keep, library = {}, G[name]
    for _, key in ipairs(keys) do keep[key] = true end
    for key in pairs(library) do
      if not keep[key] then library[key] = nil end
    end
  end
  for _, name in ipairs(removed) do
    G[name], loaded[name], package.preload[name] = nil, nil, nil
  end
  -- The methods of string.buffer are their own metatable: scripts get a copy, without the metamethods.
  local methods = {}
  for name, method in pairs(buffer_methods) do
    if not name:find "^__" then methods[name] = method end
  end
  for _, name in ipairs(unsafe_buffer) do methods[name] = nil end
  buffer_methods.__index = methods
  local setfenv = G.setfenv
  function G.setfenv(f, env)
    -- 0 is the coroutine, which other hooks use after this one; the level counts this function in. A text counts as
    -- its number, and C cuts what it cannot hold.
    local level = tonumber(f)
    if level and not (level >= 1 and level < 2 ^ 20) then error("setfenv(0) is not for policies", 2) end
    local of = setfenv(level and level - level % 1 + 1 or f, env) -- no tail call: it would change the levels
    return of
  end
end

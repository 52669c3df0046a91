-- `penstock test`: busted's runner for specs of policies. Called once by core/script/test_command.c.

local function missing()
  return nil, "busted, which runs specs, is not installed (Debian: apt install lua-busted)"
end

local function add_folder(folder)
  package.path = ("%s/?.lua;%s/?/init.lua;%s"):format(folder, folder, package.path)
end

-- A spec's require finds what lies beside it, or beside the folder that was named.
local function add_folders(specs)
  for i = #specs, 1, -1 do
    local spec = specs[i]
    add_folder(spec:match "%.lua$" and (spec:match "^(.*)/[^/]*$" or ".") or spec)
  end
end

-- Counts what went wrong.
local function count(busted)
  local wrong = 0
  local function add()
    wrong = wrong + 1
    return nil, true
  end
  busted.subscribe({ "error" }, add)
  busted.subscribe({ "failure" }, add)
  return function() return wrong end
end

-- Each test has a net of its own, which must be in order when it ends.
local function watch(busted, runner)
  busted.subscribe({ "test", "start" }, function(element)
    local run = element.run
    element.run = function(...)
      run(...)
      runner.finish()
    end
    return nil, true
  end)
  busted.subscribe({ "test", "end" }, function()
    runner.begin()
    return nil, true
  end)
end

local function is_terminal()
  local ok, term = pcall(require, "term")
  return ok and term.isatty(io.stdout)
end

local function load_output(busted, options)
  local output = options.output or (is_terminal() and "utfTerminal" or "plainTerminal")
  require "busted.modules.output_handler_loader" ()(busted, output, {
    defaultOutput = "plainTerminal", verbose = true, suppressPending = false, deferPrint = false,
    language = "en", arguments = {},
  })
end

-- run(options, test, runner) -> how many tests failed, or nil and why none was run.
-- options: specs (files and folders), seed, filter, output.
return function(options, test, runner)
  if not package.searchpath("busted.core", package.path) then return missing() end
  test.seed = options.seed
  math.randomseed(options.seed)
  add_folders(options.specs)
  local busted = require "busted.core" ()
  require "busted" (busted)
  local wrong = count(busted)
  load_output(busted, options)
  watch(busted, runner)
  require "busted.modules.filter_loader" ()(busted, {
    tags = {}, excludeTags = {}, filter = { options.filter }, filterOut = {}, list = false, nokeepgoing = false,
    suppressPending = false,
  })
  local load_files = require "busted.modules.test_file_loader" (busted, { "lua" })
  load_files(options.specs, { "_spec%.lua$" }, { excludes = {}, verbose = true, recursive = true })
  require "busted.execute" (busted)(1, { seed = options.seed, shuffle = false, sort = false })
  busted.publish { "exit" }
  io.stdout:flush()
  return wrong()
end

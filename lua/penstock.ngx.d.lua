---@meta penstock.ngx
-- Annotations of require "penstock.ngx": what libraries written for OpenResty find in hooks.

---@class penstock.ngx.Thread

---@class penstock.ngx.Dict ps.store under OpenResty's names; without flags
local Dict = {}
---@return (string | number | boolean)? value
---@return string? err
function Dict:get(key) end
---@return boolean? ok
---@return string? err
function Dict:set(key, value, seconds) end
---@return boolean? ok
---@return string? err "exists"
function Dict:add(key, value, seconds) end
---@return number? new
---@return string? err "not found", "not a number"
function Dict:incr(key, by, init, seconds) end
---@return boolean? ok
---@return string? err
function Dict:delete(key) end
---@return number? seconds 0 without an end
---@return string? err "not found"
function Dict:ttl(key) end

---@class penstock.ngx
---@field OK integer
---@field ERROR integer
---@field AGAIN integer
---@field DONE integer
---@field DECLINED integer
---@field STDERR integer
---@field EMERG integer
---@field ALERT integer
---@field CRIT integer
---@field ERR integer
---@field WARN integer
---@field NOTICE integer
---@field INFO integer
---@field DEBUG integer
---@field null lightuserdata as cjson.null
---@field ctx table conn.ctx of the hook's connection
---@field config { subsystem: "stream", debug: false }
---@field shared table<string, penstock.ngx.Dict>
---@field socket { tcp: fun(): penstock.Stream, connect: fun(host: string, port: integer?): penstock.Stream?, string? }
---@field worker { id: (fun(): integer), pid: (fun(): integer), exiting: fun(): boolean }
---@field timer { at: (fun(s: number, f: function, ...): 1?, string?), every: fun(s: number, f: function, ...): 1?, string? }
local ngx = {}

ngx.thread = {}
---@return penstock.ngx.Thread
function ngx.thread.spawn(f, ...) end
---Of the first thread that ends: true and what it returned, or false and its error.
---@return boolean? ok
function ngx.thread.wait(...) end
---@return 1? ok
---@return string? err
function ngx.thread.kill(thread) end

---@param seconds number
function ngx.sleep(seconds) end
---@return number seconds since 1970, with milliseconds
function ngx.now() end
---@return integer
function ngx.time() end
function ngx.update_time() end
---@param level integer ngx.ERR and its kin
function ngx.log(level, ...) end

return ngx

"""Static files of the dashboard. A package, because tgext.pluggable looks for one."""

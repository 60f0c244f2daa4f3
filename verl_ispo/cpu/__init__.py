"""A CPU back end for verl: platform, process group, FSDP2 engine and a rollout server.

It exists to try, test and teach the method with verl's real trainer where there is no accelerator. It is chosen by
``VERL_PLATFORM=cpu`` alone, never by detection, and refuses to start in a process that sees a GPU.
"""

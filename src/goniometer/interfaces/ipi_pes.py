"""The file that i-PI loads: ``<pes>custom</pes>`` with this ``<pes_path>``, or ``i-pi-driver-py -m custom -P`` with it.

i-PI reads two names from it and calls what the second one means with the parameters of its input.
"""

from goniometer.interfaces.ipi import pes_from_input

__all__ = ["pes_from_input"]

__DRIVER_NAME__ = "goniometer"
__DRIVER_CLASS__ = "pes_from_input"

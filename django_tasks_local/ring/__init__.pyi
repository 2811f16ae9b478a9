from .firing import Due, Outcome
from .format.ids import format_id, random_id
from .format.layout import Geometry, Share
from .format.tally import BOUNDS_S, OUTCOMES, Tally
from .look import Look
from .records.codes import code_digest
from .records.killing import Run
from .records.loss import Loss, loss_word, lost_error
from .records.reader import Found
from .records.schedule import Row
from .ring import Ring
from .shm.entries import Entry, PoolState, Role
from .shm.leadership import ANY_SERVER, Leadership
from .shm.limits import Limits
from .shm.neighbours import Surveyed, sites_elsewhere, survey_rings
from .shm.objects import fill_standard_descriptors, standard_descriptors
from .shm.places import MEMORY, base_name, directory_of, ring_exists, ring_name, segment_path
from .shm.removal import ring_is_attached, sweep_temporary, unlink_objects, unlink_unattached
from .shm.segment import attach_segment
from .shm.signs import Seen, Signs, ask_nothing
from .stops import Running

__all__ = [
    "ANY_SERVER", "BOUNDS_S", "MEMORY", "OUTCOMES", "Due", "Entry", "Found", "Geometry",
    "Leadership", "Limits", "Look", "Loss", "Outcome", "PoolState", "Ring", "Role", "Row", "Run",
    "Running", "Seen", "Share", "Signs", "Surveyed", "Tally", "ask_nothing", "attach_segment",
    "base_name", "code_digest", "directory_of", "fill_standard_descriptors", "format_id",
    "loss_word", "lost_error", "random_id", "ring_exists", "ring_is_attached", "ring_name",
    "segment_path", "sites_elsewhere", "standard_descriptors", "survey_rings", "sweep_temporary",
    "unlink_objects", "unlink_unattached",
]  # fmt: skip

"""What may be asked for when a task is started."""

from django import forms

from board.catalogue import KINDS

SIZES = {"Short": 5, "Medium": 25, "Long": 80}
DELAYS_S = {"Now": 0, "In 5 seconds": 5, "In 15 seconds": 15, "In a minute": 60}
LONGEST_DELAY_S = 24 * 3600


class TaskForm(forms.Form):
    """One task to be. Everything but `kind` may be left out."""

    kind = forms.ChoiceField(choices=[(kind.slug, kind.title) for kind in KINDS.values()])
    size = forms.IntegerField(min_value=1, max_value=400, required=False)
    priority = forms.IntegerField(min_value=-100, max_value=100, required=False)
    delay_s = forms.IntegerField(min_value=0, max_value=LONGEST_DELAY_S, required=False)
    phrase = forms.CharField(max_length=80, required=False)

    def clean_size(self) -> int:
        return self.cleaned_data["size"] or SIZES["Medium"]

    def clean_priority(self) -> int:
        return self.cleaned_data["priority"] or 0

    def clean_phrase(self) -> str:
        return self.cleaned_data["phrase"] or "shared memory"
